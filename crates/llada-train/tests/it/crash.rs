//! Whatever a crash leaves behind, the newest whole checkpoint is found.
