//! Tensor runtime of llada.
