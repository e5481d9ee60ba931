use super::*;

#[track_caller]
fn check(numels: &[usize], size: usize, most: usize) -> Shards {
    let shards = Shards::new(numels.to_vec(), size);
    let mut loads = vec![0; size];
    for (index, numel) in numels.iter().enumerate() {
        loads[shards.owner(index)] += numel;
    }
    assert_eq!(loads.iter().max(), Some(&most), "{loads:?}");
    let travelling: Vec<usize> = shards.buckets().iter().rev().cloned().flatten().collect();
    assert!(travelling.iter().copied().eq(0..numels.len()), "each once");
    shards
}

#[test]
fn every_rank_keeps_about_as_much() {
    check(&[100, 10, 60, 60, 10], 1, 240);
    check(&[100, 10, 60, 60, 10], 2, 120);
    check(&[100, 10, 60, 60, 10], 3, 100);
    // More ranks than parameters: some keep nothing.
    check(&[7, 5], 4, 7);
    check(&[], 2, 0);
}

#[test]
fn small_models_travel_in_several_buckets_and_large_ones_in_large() {
    assert_eq!(check(&[8; 16], 2, 64).buckets().len(), 8);
    let large = check(&[BUCKET / 2; 64], 4, 8 * BUCKET);
    assert!(large.buckets().iter().all(|bucket| bucket.len() == 2));
    assert_eq!(large.buckets()[0], 62..64, "the last gradients are first");
}

#[test]
fn parts_of_a_bucket_are_the_whole() {
    let shards = check(&[3, 1, 1, 2, 40], 3, 40);
    for (bucket, parameters) in shards.buckets().iter().enumerate() {
        let mut parts: Vec<usize> = (0..3).flat_map(|rank| shards.of(bucket, rank)).collect();
        parts.sort_unstable();
        assert!(parts.into_iter().eq(parameters.clone()));
    }
}

#[test]
fn buckets_leave_in_order_whatever_becomes_final_first() {
    let device = llada_tensor::Device::cpu(llada_tensor::CpuConfig {
        threads: 1,
        level: None,
    });
    let ones = Tensor::from_f32(&device.unwrap(), &[2], &[1.0, 1.0]).unwrap();
    let mut gradients = Gradients::zeros_like([&ones; 8]).unwrap();
    let shards = Shards::new(vec![2; 8], 1);
    let mut reduction = Reduction::new(&shards, &crate::Single);
    let mut started = Vec::new();
    for parameter in [6, 0, 7, 5, 4] {
        reduction.is_final(parameter, &gradients).unwrap();
        started.push(reduction.started.len());
    }
    assert_eq!(started, [0, 0, 2, 3, 4]);
    reduction.finish(&mut gradients).unwrap();
}
