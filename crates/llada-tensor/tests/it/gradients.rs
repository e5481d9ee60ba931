//! Gradients of every op on the tape, by central differences.
