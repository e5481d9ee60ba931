//! What a thread has of one stream.

use cudarc::driver::CudaContext;

use super::Allocator;

fn allocator() -> Allocator {
    let cuda = CudaContext::new(0).expect("the device under test");
    let stream = cuda.new_stream().expect("a stream");
    Allocator::new("cuda:0".to_owned(), cuda, stream)
}

#[test]
fn what_a_thread_has_of_one_stream_says_nothing_of_another() {
    let (one, other) = (allocator(), allocator());
    let exclusive = one.exclusive();
    let recording = exclusive.record();
    assert!(one.is_exclusive() && one.is_recording());
    assert!(!other.is_exclusive() && !other.is_recording());

    // The other one is bound as by any thread, once; this one needs no guard.
    let _bound = one.bind().unwrap();
    let first = other.bind().unwrap();
    let second = other.bind().unwrap();
    let is_free = |allocator: &Allocator| allocator.exclusive.try_write().is_ok();
    drop(second);
    assert!(!is_free(&other));
    drop(first);
    assert!(is_free(&other));

    drop(recording);
    assert!(one.is_exclusive() && !one.is_recording());
    drop(exclusive);
    assert!(!one.is_exclusive() && is_free(&one));
}
