use super::*;
use crate::Wait;
use crate::config::GivenTrain;

fn device() -> llada_tensor::Device {
    llada_tensor::Device::cpu(llada_tensor::CpuConfig {
        threads: 1,
        level: None,
    })
    .unwrap()
}

/// One of three ranks, which is not asked anything else.
#[derive(Debug)]
struct OfThree(usize);

impl Communicator for OfThree {
    fn rank(&self) -> usize {
        self.0
    }

    fn size(&self) -> usize {
        3
    }

    fn start_reduce_scatter(&self, _values: Vec<f32>, _counts: &[usize]) -> Wait<'_> {
        unreachable!()
    }

    fn start_all_gather(&self, _mine: Vec<f32>, _counts: &[usize]) -> Wait<'_> {
        unreachable!()
    }

    fn all_gather(&self, _mine: &[f64]) -> Vec<Vec<f64>> {
        unreachable!()
    }

    fn broadcast(&self, _root: usize, _bytes: Vec<u8>) -> Vec<u8> {
        unreachable!()
    }

    fn abort(&self) -> ! {
        unreachable!()
    }
}

#[test]
fn the_moments_of_a_parameter_are_in_the_memory_of_one_rank() {
    let device = device();
    let parameters = [6, 3, 2, 2, 3].map(|n| Parameter {
        name: String::new(),
        value: Tensor::from_f32(&device, &[n], &vec![1.0; n]).unwrap(),
        kind: ParameterKind::Vector,
    });
    let numels = [0, 1, 2].map(|rank| {
        let communicator = OfThree(rank);
        let optimizer = Optimizer::sharded(&parameters, &communicator).unwrap();
        let moments = optimizer.moments.iter().flatten().flatten();
        moments.map(Tensor::numel).sum::<usize>()
    });
    assert_eq!(numels, [12, 10, 10], "two moments of 6, 5 and 5 numbers");
}

#[test]
fn clipping_only_shortens() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} and {b}");
    near(clip_coefficient(1.0, 4.0), 0.25);
    near(clip_coefficient(1.0, 0.5), 1.0);
    near(clip_coefficient(1.0, 0.0), 1.0);
    near(clip_coefficient(0.0, 1e9), 1.0);
}

/// Muon takes the matrices of the blocks and leaves the rest to AdamW.
#[test]
fn muon_updates_matrices_alone() {
    let device = device();
    let kinds = [
        ParameterKind::Table,
        ParameterKind::Matrix,
        ParameterKind::Vector,
    ];
    let step = |optimizer: &str| -> Vec<Vec<f32>> {
        let mut parameters = kinds.map(|kind| Parameter {
            name: String::new(),
            value: Tensor::from_f32(&device, &[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap(),
            kind,
        });
        let config: GivenTrain =
            toml::from_str(&format!("steps = 1\noptimizer = \"{optimizer}\"")).unwrap();
        let config = config.resolve(&[]);
        let mut state = Optimizer::new(&parameters).unwrap();
        let gradient = Tensor::from_f32(&device, &[2, 2], &[1.0, -2.0, 0.5, 0.0]).unwrap();
        for sum in state.gradients.tensors_mut() {
            *sum = gradient.clone();
        }
        let update = Update {
            step: 1,
            learning_rate: 0.1,
            gradient_scale: 1.0,
        };
        state.update(&mut parameters, &config, update).unwrap();
        parameters
            .iter()
            .map(|parameter| parameter.value.to_vec_f32().unwrap())
            .collect()
    };
    let (adamw, muon) = (step("adamw"), step("muon"));
    assert_eq!((&adamw[0], &adamw[2]), (&muon[0], &muon[2]));
    assert_ne!(adamw[1], muon[1]);
    assert_ne!(adamw[0], adamw[2], "norms do not decay");
}
