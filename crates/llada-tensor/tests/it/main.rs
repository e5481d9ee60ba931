//! The ops against `f64` references, their gradients by central differences, odd shapes, at
//! every level that the machine has.

mod gradients;
mod matmul;
mod support;
