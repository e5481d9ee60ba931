//! Arithmetic, control flow, warp-wide instructions, atomics and variables, against Rust.

use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

use crate::device::Device;
use crate::kernels;

fn shape(grid: u32, block: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (grid, 1, 1),
        block_dim: (block, 1, 1),
        shared_mem_bytes: 0,
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Args {
    x: u64,
    y: u64,
    n: i32,
    table: [f32; 16],
}

// SAFETY: plain data, laid out as the kernel's argument.
unsafe impl cudarc::driver::DeviceRepr for Args {}

fn address<T>(slice: &CudaSlice<T>, device: &Device) -> u64 {
    use cudarc::driver::DevicePtr;
    slice.device_ptr(&device.stream).0
}

/// Relative error, or absolute below 1.
#[track_caller]
fn close(name: &str, got: f64, want: f64, tolerance: f64) {
    let error = (got - want).abs() / want.abs().max(1.0);
    assert!(
        error <= tolerance,
        "{name}: {got} for {want}, off by {error:e}"
    );
}

#[test]
fn math_functions_agree_with_f64() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("basics"))
        .load_function("math")
        .unwrap();
    let n = 200;
    let x: Vec<f32> = (0..n).map(|i| 0.05 + 0.0317 * i as f32).collect();
    let x_device = device.stream.clone_htod(&x).unwrap();
    let y_device = device.stream.alloc_zeros::<f64>(21 * n).unwrap();
    let table: [f32; 16] = std::array::from_fn(|i| i as f32 * 1.5 - 3.0);
    let args = Args {
        x: address(&x_device, &device),
        y: address(&y_device, &device),
        n: n as i32,
        table,
    };
    // SAFETY: the arguments fit the kernel.
    unsafe {
        device
            .stream
            .launch_builder(&kernel)
            .arg(&args)
            .launch(shape(4, 64))
    }
    .unwrap();
    device.finish();
    let y = device.stream.clone_dtoh(&y_device).unwrap();
    for (i, &v) in x.iter().enumerate() {
        let d = f64::from(v);
        let at = |row: usize| y[row * n + i];
        let single = 4e-7;
        close("expf", at(0), d.exp(), 2e-7 * 4.0);
        close("logf", at(1), d.ln(), single);
        close("sinf", at(2), d.sin(), single);
        close("cosf", at(3), d.cos(), single);
        close("tanhf", at(4), d.tanh(), single);
        close("powf", at(5), d.powf(1.5), 1e-6);
        close("rsqrtf", at(7), 1.0 / d.sqrt(), single);
        close("division", at(8), d / f64::from(3.1_f32), single);
        close("exp", at(9), d.exp(), 1e-15);
        close("log", at(10), d.ln(), 1e-15);
        close("sqrt", at(11), d.sqrt() / 1.7, 1e-15);
        close("pow", at(12), d.powf(3.3), 4e-15);
        close("sin", at(13), d.sin(), 1e-15);
        close("__expf", at(14), d.exp(), 2e-6);
        close(
            "function",
            at(15),
            f64::from(v * table[v as usize & 15] + n as f32),
            single,
        );
        close("constant", at(16), f64::from(1 << (i & 3)), 0.0);
        close(
            "pointer",
            at(17),
            f64::from(b"abcd"[2 * (i & 1) + (i >> 1 & 1)]),
            0.0,
        );
        close("fmaxf", at(18), f64::from(v.max(2.0) - v.min(2.0)), 0.0);
        close("sin of a large f64", at(19), (d * 1e9).sin(), 1e-14);
        close(
            "sinf of a large f32",
            at(20),
            f64::from(v * 1e7).sin(),
            single,
        );
    }
}

#[test]
fn integers_agree_with_rust() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("basics"))
        .load_function("integers")
        .unwrap();
    let special = [
        0,
        1,
        -1,
        i32::MAX,
        i32::MIN,
        0x1234_5678,
        -0x0765_4321,
        31,
        64,
        255,
    ];
    let pairs: Vec<(i32, i32)> = special
        .iter()
        .flat_map(|&p| special.iter().map(move |&q| (p, q)))
        .filter(|&pq| pq != (i32::MIN, -1))
        .collect();
    let n = pairs.len();
    let a: Vec<i32> = pairs.iter().map(|pair| pair.0).collect();
    let b: Vec<i32> = pairs.iter().map(|pair| pair.1).collect();
    let (a, b) = (
        device.stream.clone_htod(&a).unwrap(),
        device.stream.clone_htod(&b).unwrap(),
    );
    let mut y = device.stream.alloc_zeros::<i64>(30 * n).unwrap();
    let count = n as i32;
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&a).arg(&b).arg(&mut y).arg(&count);
    // SAFETY: the arguments fit the kernel.
    unsafe { builder.launch(shape(n.div_ceil(64) as u32, 64)) }.unwrap();
    device.finish();
    let y = device.stream.clone_dtoh(&y).unwrap();
    for (i, &(p, q)) in pairs.iter().enumerate() {
        for (row, want) in integer_results(p, q).into_iter().enumerate() {
            assert_eq!(y[row * n + i], want, "row {row} of {p:#x} and {q:#x}");
        }
    }
}

/// What the kernel `integers` computes, by Rust.
fn integer_results(p: i32, q: i32) -> [i64; 30] {
    let (u, w) = (p as u32, q as u32);
    let (uu, ww) = (
        u64::from(u) << 32 | u64::from(w),
        (u64::from(w) << 20) | u64::from(u),
    );
    let s = w & 31;
    let word = |x: u32| i64::from(x);
    let int = |x: i32| i64::from(x);
    let bytes = [u.to_le_bytes(), w.to_le_bytes()].concat();
    let selector = 0x5140 + s;
    let permuted = (0..4).fold(0, |sum, i| {
        sum | u32::from(bytes[(selector >> (4 * i) & 7) as usize]) << (8 * i)
    });
    let pair = u64::from(w) << 32 | u64::from(u);
    let (sum, carry) = u.overflowing_add(w);
    let (difference, borrow) = u.overflowing_sub(w);
    let high = u.wrapping_add(7).wrapping_add(u32::from(carry));
    let low = u.wrapping_sub(7).wrapping_sub(u32::from(borrow));
    let find_first = |x: i32| {
        if x == 0 {
            0
        } else {
            x.trailing_zeros() as i32 + 1
        }
    };
    [
        int(p) + int(q),
        int(p.wrapping_sub(q)),
        int(p.wrapping_mul(q)),
        (int(p) * int(q)) >> 32,
        ((u64::from(u) * u64::from(w)) >> 32) as i64,
        int(p.checked_div(q).unwrap_or(0)),
        int(p.checked_rem(q).unwrap_or(0)),
        word(u.checked_div(w).unwrap_or(0)),
        word(u.checked_rem(w).unwrap_or(0)),
        word((u << s) ^ (u >> s)),
        int(p >> s),
        int(p.leading_zeros() as i32 + 100 * p.count_ones() as i32 + 10_000 * find_first(q)),
        word(u.reverse_bits()),
        word(permuted),
        word(((pair << s) >> 32) as u32),
        (uu / (ww | 1)) as i64,
        (uu % (ww | 1)) as i64,
        ((u128::from(uu) * u128::from(ww)) >> 64) as i64,
        i64::from(uu.leading_zeros() + 100 * ww.count_ones()),
        int(p.min(q)) + 3 * int(p.max(q)) + word(u.min(w)),
        int(i32::from(p as i16) * i32::from(q as i16) + i32::from((p >> 3) as i16)),
        int(i32::from(p as i8) + i32::from(q as u8)),
        word((u & 0x0f0f_0f0f) | (w & 0xf0f0_f0f0)),
        int(p.wrapping_abs().wrapping_add(if u > w { 1 } else { 2 })),
        (uu << s) as i64 ^ (ww >> s) as i64 ^ ((ww as i64) >> s),
        (p as f32) as i64 + (u as f32) as i64,
        (uu as f64 * 0.5) as i64,
        int(((p as f32 * 0.37).round_ties_even() as i32)
            .wrapping_add((q as f32 * 0.11).floor() as i32)),
        (u64::from(high) << 32 | u64::from(sum)) as i64,
        (u64::from(low) << 32 | u64::from(difference)) as i64,
    ]
}

#[test]
fn lanes_diverge_and_meet_again() {
    for check in [false, true] {
        let device = Device::new(check);
        let kernel = device
            .module(kernels!("basics"))
            .load_function("diverge")
            .unwrap();
        let n = 1000;
        let mut y = device.stream.alloc_zeros::<i32>(n).unwrap();
        let count = n as i32;
        let mut builder = device.stream.launch_builder(&kernel);
        builder.arg(&mut y).arg(&count);
        // SAFETY: the arguments fit the kernel.
        unsafe { builder.launch(shape(8, 128)) }.unwrap();
        let y = device.stream.clone_dtoh(&y).unwrap();
        for (i, &got) in y.iter().enumerate() {
            let i = i as i32;
            let mut v = 0_i32;
            for k in 0..i & 15 {
                match (k & 1, i & 2) {
                    (1, _) => v += k * i,
                    (_, 0) => v -= k,
                    _ => v ^= k,
                }
                if v > 1000 {
                    break;
                }
            }
            let v = match i % 7 {
                0 => v + 1,
                1 => v * 3,
                2 => v ^ 7,
                3 => v / 5,
                4 => !v,
                5 => v << 1,
                _ => v - 2,
            };
            assert_eq!(got, if i % 5 == 3 { v } else { v * 2 }, "thread {i}");
        }
    }
}

#[test]
fn blocks_reduce_and_lanes_vote() {
    for seed in [0, 1, 77] {
        let device = Device::new(true);
        crate::device::set_seed(seed);
        let kernel = device
            .module(kernels!("basics"))
            .load_function("reduce")
            .unwrap();
        let (n, blocks) = (1024, 4);
        let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32) / 101.0).collect();
        let x_device = device.stream.clone_htod(&x).unwrap();
        let mut sums = device.stream.alloc_zeros::<f32>(blocks).unwrap();
        let mut votes = device.stream.alloc_zeros::<u32>(n).unwrap();
        let count = n as i32;
        let mut builder = device.stream.launch_builder(&kernel);
        builder
            .arg(&x_device)
            .arg(&mut sums)
            .arg(&mut votes)
            .arg(&count);
        // SAFETY: the arguments fit the kernel.
        unsafe { builder.launch(shape(blocks as u32, 256)) }.unwrap();
        device.finish();
        let sums = device.stream.clone_dtoh(&sums).unwrap();
        for (block, &sum) in sums.iter().enumerate() {
            let want: f64 = x[block * 256..][..256].iter().map(|&v| f64::from(v)).sum();
            close("sum", f64::from(sum), want, 1e-6);
        }
        let votes = device.stream.clone_dtoh(&votes).unwrap();
        for (i, &got) in votes.iter().enumerate() {
            let lane = i as u32 % 32;
            let warp = &x[i / 32 * 32..][..32];
            let ballot = (0..32).fold(0, |m, l| m | u32::from(warp[l] > 0.5) << l);
            let up = if lane < 3 { lane } else { lane - 3 };
            let idx = lane / 8 * 8 + 5;
            let same = (0..32).fold(0, |m, l| m | u32::from(l / 5 == lane / 5) << l);
            assert_eq!(
                got,
                ballot ^ up << 8 ^ idx << 16 ^ same ^ (496 * 65_537),
                "thread {i}"
            );
        }
    }
}

#[test]
fn atomics_add_up() {
    for check in [false, true] {
        let device = Device::new(check);
        let module = device.module(kernels!("basics"));
        let kernel = module.load_function("atomics").unwrap();
        let n = 1000_u32;
        let mut u = device.stream.alloc_zeros::<u32>(16).unwrap();
        let mut l = device.stream.alloc_zeros::<u64>(1).unwrap();
        let mut f = device.stream.alloc_zeros::<f32>(1).unwrap();
        let mut builder = device.stream.launch_builder(&kernel);
        builder.arg(&mut u).arg(&mut l).arg(&mut f).arg(&n);
        // SAFETY: the arguments fit the kernel.
        unsafe { builder.launch(shape(8, 128)) }.unwrap();
        device.finish();
        let u_host = device.stream.clone_dtoh(&u).unwrap();
        let xor = (0..n).fold(0, |x, i| x ^ i);
        let want = [
            n,
            n - 1,
            1_u32.wrapping_sub(n),
            xor,
            77,
            1,
            0,
            0,
            125,
            125,
            125,
            125,
            125,
            125,
            125,
            125,
        ];
        assert_eq!(u_host, want);
        let sum: u64 = (0..u64::from(n)).map(|i| i << 20).sum();
        assert_eq!(device.stream.clone_dtoh(&l).unwrap(), [sum]);
        assert_eq!(device.stream.clone_dtoh(&f).unwrap(), [500.0]);
        let read = module.load_function("read_counter").unwrap();
        let mut builder = device.stream.launch_builder(&read);
        builder.arg(&mut u);
        // SAFETY: the argument fits the kernel.
        unsafe { builder.launch(shape(1, 1)) }.unwrap();
        assert_eq!(device.stream.clone_dtoh(&u).unwrap()[0], 5 + 2 * n);
    }
}

#[test]
fn arrays_live_in_local_memory() {
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("basics"))
        .load_function("local_array")
        .unwrap();
    let x: Vec<i32> = (0..32).map(|i| i * 7 % 29 - 5).collect();
    let x_device = device.stream.clone_htod(&x).unwrap();
    let mut y = device.stream.alloc_zeros::<i32>(64).unwrap();
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&x_device).arg(&mut y);
    // SAFETY: the arguments fit the kernel.
    unsafe { builder.launch(shape(1, 64)) }.unwrap();
    let y = device.stream.clone_dtoh(&y).unwrap();
    for (t, &got) in y.iter().enumerate() {
        let a: Vec<i32> = (0..32).map(|k| x[(t + k) & 31] * k as i32).collect();
        let want: i32 = x.iter().map(|&k| a[(k & 31) as usize]).sum();
        assert_eq!(got, want, "thread {t}");
    }
}

#[test]
fn halves_round_as_the_half_crate_does() {
    use half::{bf16, f16};
    let device = Device::new(true);
    let kernel = device
        .module(kernels!("basics"))
        .load_function("halves")
        .unwrap();
    let n = 64;
    let x: Vec<f32> = (0..=n)
        .map(|i| ((i * 31 % 67) as f32 - 30.0) * 0.137_421)
        .collect();
    let x_device = device.stream.clone_htod(&x).unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(8 * n).unwrap();
    let count = n as i32;
    let mut builder = device.stream.launch_builder(&kernel);
    builder.arg(&x_device).arg(&mut y).arg(&count);
    // SAFETY: the arguments fit the kernel.
    unsafe { builder.launch(shape(1, n as u32)) }.unwrap();
    device.finish();
    let y = device.stream.clone_dtoh(&y).unwrap();
    for i in 0..n {
        let (b, c) = (
            bf16::from_f32(x[i]).to_f64(),
            bf16::from_f32(x[i + 1]).to_f64(),
        );
        let (h, k) = (
            f16::from_f32(x[i]).to_f64(),
            f16::from_f32(x[i + 1]).to_f64(),
        );
        let at = |row: usize| f64::from(y[row * n + i]);
        let (bf, hf) = (
            |v: f64| bf16::from_f64(v).to_f64(),
            |v: f64| f16::from_f64(v).to_f64(),
        );
        close("bf16", at(0), b, 0.0);
        close("f16", at(1), h, 0.0);
        close("bf16 sum", at(2), bf(b + c), 0.0);
        close("f16 product", at(3), hf(h * k), 0.0);
        close("bf16 fma", at(4), bf(b.mul_add(c, b)), 0.0);
        close("f16 fma", at(5), hf(h.mul_add(k, h)), 0.0);
        close(
            "bf16x2",
            at(6),
            f64::from((bf(b * b) + bf(c + c)) as f32),
            0.0,
        );
        close("f16 exp", at(7), h.exp() + f64::from(u8::from(h < k)), 2e-3);
    }
}
