//! Every compiled image can be loaded: on the software device, every instruction of its PTX is
//! known.

use cudarc::driver::{CudaContext, result};

#[test]
fn every_image_loads() {
    if crate::support::cuda().is_none() {
        return;
    }
    let context = CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    assert!(!llada_kernels::IMAGES.is_empty());
    let mut failed = Vec::new();
    for image in llada_kernels::IMAGES {
        // SAFETY: a whole fatbin.
        let module = unsafe { result::module::load_data(image.fatbin.as_ptr().cast()) };
        if let Err(error) = module {
            failed.push((image.op, error));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
