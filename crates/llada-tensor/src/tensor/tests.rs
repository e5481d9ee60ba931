//! Tests of views.

use super::*;
use crate::CpuConfig;

fn device() -> Device {
    Device::cpu(CpuConfig::default()).expect("a CPU is always there")
}

#[test]
fn views_read_the_right_elements() {
    let values: Vec<f32> = (0..24u8).map(f32::from).collect();
    let x = Tensor::from_f32(&device(), &[2, 3, 4], &values).expect("24 values");
    let view = x
        .narrow(1, 1, 2)
        .and_then(|x| x.transpose(0, 2))
        .expect("valid view");
    assert_eq!(view.shape(), [4, 2, 2]);
    let expected = [
        4., 16., 8., 20., 5., 17., 9., 21., 6., 18., 10., 22., 7., 19., 11., 23.,
    ];
    assert_eq!(view.to_vec_f32().unwrap(), expected);
    assert!(view.reshape(&[16]).is_err());
    assert_eq!(
        view.to_dtype(DType::Bf16).unwrap().to_vec_f32().unwrap(),
        expected
    );
}

#[test]
fn bad_views_are_errors() {
    let x = Tensor::zeros(&device(), DType::F32, &[2, 3]).unwrap();
    assert!(x.narrow(2, 0, 1).is_err());
    assert!(x.narrow(1, 2, 2).is_err());
    assert!(x.narrow(1, usize::MAX, 2).is_err());
    assert!(x.transpose(0, 2).is_err());
    assert!(x.reshape(&[5]).is_err());
    assert!(Tensor::from_f32(x.device(), &[2], &[1.0]).is_err());
}

#[test]
fn shared_storage_cannot_be_written() {
    let mut x = Tensor::zeros(&device(), DType::F32, &[2]).unwrap();
    let y = x.clone();
    assert!(matches!(x.f32s_mut(), Err(Error::SharedOutput { .. })));
    drop(y);
    assert!(x.f32s_mut().is_ok());
}
