use super::*;

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 3, 8] {
        let workers = Workers::new(threads).unwrap();
        for n in (0..200).chain([10_000]) {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            workers.for_each(n, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1)
            );
        }
    }
}

#[test]
fn chunks_cover_the_slice() {
    let workers = Workers::new(3).unwrap();
    let mut data = vec![0_usize; 1003];
    workers.for_each_chunk(&mut data, 10, |i, part| {
        assert_eq!(part.len(), if i == 100 { 3 } else { 10 });
        part.fill(i + 1);
    });
    assert!(data.iter().enumerate().all(|(at, &x)| x == at / 10 + 1));
    workers.for_each_chunk(&mut [0; 0], 10, |_, _| unreachable!("there is no chunk"));
}

#[test]
fn callers_and_tasks_may_overlap() {
    // Two threads share the helpers, and tasks have tasks of their own.
    let workers = Workers::new(3).unwrap();
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    workers.for_each(7, |_| {
                        workers.for_each(5, |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 4 * 50 * 7 * 5);
}

#[test]
fn a_panic_of_a_task_reaches_the_caller_and_leaves_the_workers_usable() {
    let workers = Workers::new(3).unwrap();
    for at in 0..20 {
        let run = || workers.for_each(20, |i| assert_ne!(i, at, "this task fails"));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
    let sum = AtomicUsize::new(0);
    workers.for_each(20, |i| {
        sum.fetch_add(i, Ordering::Relaxed);
    });
    assert_eq!(sum.into_inner(), 190);
}
