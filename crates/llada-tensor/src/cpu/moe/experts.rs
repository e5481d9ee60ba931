//! The experts: products of grouped rows.
//!
//! The rows of each expert are one part of a product, so that all experts are one job of the workers,
//! which share it evenly however many rows an expert has. Rows are gathered into panels on the way,
//! and what lies between the products is computed while the next left operand is packed.

use super::groups::Groups;
use crate::backend::{
    ExpertGradientArgs, ExpertRows, ExpertWeights, ExpertsArgs, ExpertsBackwardArgs,
};
use crate::cpu::blocks::integers;
use crate::cpu::blocks::left::Left;
use crate::cpu::context::Context;
use crate::cpu::matmul::{self, LeftKind, PackedLeft, Right, RightPanels};
use crate::cpu::panels::{Kind, Layout, Matrix, Side, Values, pack_matrices, pack_rows};
use crate::cpu::quantized;
use crate::cpu::simd::{Kernel, Simd};
use crate::cpu::swiglu::{Backward, Forward};
use crate::cpu::tasks::{Output, Part, Source};
use crate::cpu::workers::{Shared, rows_per_task};
use crate::{Error, Precision, Result, Tensor};

const OP: &str = "experts";

/// What all products of a call have in common.
#[derive(Clone, Copy)]
struct Products<'a> {
    cx: Context<'a>,
    precision: Precision,
    groups: &'a Groups,
}

impl Products<'_> {
    fn kind(&self) -> Kind {
        Kind::of(self.cx.level, self.precision)
    }

    /// What weights are multiplied by.
    fn kinds<const N: usize>(&self, weights: [ExpertWeights<'_>; N]) -> [LeftKind; N] {
        weights.map(|w| match w {
            ExpertWeights::Packed(w) => LeftKind::of_packed(w, self.precision),
            ExpertWeights::Tensor(_) => LeftKind::of_values(self.precision),
        })
    }

    /// The rows of the tokens, as a left operand.
    fn left_of_tokens(&self, x: &Tensor, kinds: &[LeftKind]) -> Result<PackedLeft> {
        let [tokens, k] = x.matrix_shape(OP)?;
        let (cx, x) = (self.cx, Matrix::of(x, 0)?);
        let of = &self.groups.tokens;
        let is_values = |kind: &LeftKind| *kind == LeftKind::Values;
        let values = kinds.iter().copied().filter(is_values).take(1);
        let values: Vec<LeftKind> = values.collect();
        let mut left = self.left(k, &values, |row, out| x.copy_row(of[row], out));
        // A token is rounded once, for all of its experts.
        if kinds.contains(&LeftKind::Quantized) {
            let each = quantized::Left::new(cx, x, [tokens, k]);
            let panels = self.groups.panels(quantized::PANEL);
            left.quantized = Some(each.gather(cx, &panels, of));
        }
        if kinds.contains(&LeftKind::Rounded) {
            let each = Left::new(cx, [tokens, k], |row, out| x.copy_row(row, out));
            left.rounded = Some(each.gather(cx, of));
        }
        Ok(left)
    }

    /// The rows of `k` values that `fill` writes, as a left operand.
    fn left(
        &self,
        k: usize,
        kinds: &[LeftKind],
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> PackedLeft {
        let (cx, rows) = (self.cx, self.groups.tokens.len());
        let mut left = PackedLeft {
            precision: self.precision,
            size: [rows, k],
            values: None,
            quantized: None,
            rounded: None,
        };
        if kinds.contains(&LeftKind::Quantized) {
            let panels = self.groups.panels(quantized::PANEL);
            left.quantized = Some(quantized::Left::of_rows(cx, &panels, k, &fill));
        }
        if kinds.contains(&LeftKind::Rounded) {
            left.rounded = Some(Left::new(cx, [rows, k], &fill));
        }
        if kinds.contains(&LeftKind::Values) {
            let kind = self.kind();
            let panels = self.groups.panels(kind.rows());
            let layout = self.layout(k);
            let mut values = cx.pool.take(layout.elements() * kind.element_bytes());
            let fill = |rows: std::ops::Range<usize>, out: &mut [f32]| {
                for (row, out) in rows.zip(out.chunks_exact_mut(k)) {
                    fill(row, out);
                }
            };
            pack_rows(cx, kind, Side::Left, (layout, &panels), &fill, &mut values);
            left.values = Some(values);
        }
        left
    }

    /// `c[r] = w[e] a[r]` for the rows of each expert, `c: [T * k, N]`.
    fn multiply(
        &self,
        a: &PackedLeft,
        w: ExpertWeights<'_>,
        n: usize,
        c: &mut [f32],
    ) -> Result<()> {
        match w {
            ExpertWeights::Packed(packed) => {
                self.multiply_packed(a, &Right::packed(packed, OP)?, n, c)
            }
            ExpertWeights::Tensor(w) => {
                let matrix = |e: usize| Ok(Matrix::of(w, e)?.transposed());
                self.multiply_matrices(a, matrix, n, c, false)
            }
        }
    }

    fn multiply_packed(
        &self,
        a: &PackedLeft,
        w: &Right<'_>,
        n: usize,
        c: &mut [f32],
    ) -> Result<()> {
        let cx = self.cx;
        match (w, &a.values, &a.quantized, &a.rounded) {
            (Right::Quantized(w, _), _, Some(left), _) => {
                let parts = self.parts(quantized::PANEL, n.div_ceil(quantized::PANEL));
                quantized::gemm(cx, left, w, (&parts, n), c, false);
            }
            (Right::Blocks(w, _), _, _, Some(left)) => {
                let parts = self.parts(integers::PANEL, n.div_ceil(integers::PANEL));
                integers::gemm(cx, left, w, (&parts, n), c, false);
            }
            (Right::Packed(w, _), Some(left), _, _) if w.kind == self.kind() => {
                let kind = w.kind;
                let right = RightPanels::of(w);
                let parts = self.parts(kind.rows(), n.div_ceil(kind.columns()));
                let left = (left, self.layout(a.size[1]));
                let out = Output::sums(c, false);
                matmul::multiply(cx, kind, left, &right, (&parts, n), out);
            }
            _ => {
                let what = "the experts were packed for another precision or cpu level";
                return Err(Error::InvalidArgument { op: OP, what });
            }
        }
        Ok(())
    }

    /// `c[r] (+)= a[r] matrix(e)`, matrices of `[K, N]`, some of which are packed at a time.
    fn multiply_matrices<'m>(
        &self,
        a: &PackedLeft,
        matrix: impl Fn(usize) -> Result<Matrix<'m>>,
        n: usize,
        c: &mut [f32],
        accumulate: bool,
    ) -> Result<()> {
        /// Bytes of packed weights.
        const AT_ONCE: usize = 64 << 20;
        let (cx, kind, k) = (self.cx, self.kind(), a.size[1]);
        let Some(left) = &a.values else {
            let what = "integers are only multiplied by packed weights";
            return Err(Error::InvalidArgument { op: OP, what });
        };
        let right_panels = n.div_ceil(kind.columns());
        let bytes = right_panels * kind.columns() * k * kind.element_bytes();
        let parts = self.parts(kind.rows(), right_panels);
        let at_once = (AT_ONCE / bytes.max(1)).max(1);
        for (hits, parts) in self.groups.hits.chunks(at_once).zip(parts.chunks(at_once)) {
            let matrices = hits.iter().map(|&(e, _)| matrix(e));
            let matrices = matrices.collect::<Result<Vec<_>>>()?;
            let (panels, layout) = pack_matrices(cx, kind, &matrices, [n, k]);
            let right = RightPanels {
                source: Source::Panels(&panels),
                layout,
            };
            let in_stack = |(at, part): (usize, &Part)| Part {
                right_panel: at * right_panels,
                ..*part
            };
            let parts: Vec<Part> = parts.iter().enumerate().map(in_stack).collect();
            let left = (left, self.layout(k));
            let out = Output::sums(c, accumulate);
            matmul::multiply(cx, kind, left, &right, (&parts, n), out);
        }
        Ok(())
    }

    fn parts(&self, height: usize, right_panels: usize) -> Vec<Part> {
        self.groups.parts(height, right_panels)
    }

    /// Of values in panels: every expert begins one.
    fn layout(&self, k: usize) -> Layout {
        let height = self.kind().rows();
        let panels = self.groups.panels(height).len();
        Layout::new(self.kind(), panels * height, height, k)
    }

    /// `y[t] = sum_j weights[t, j] x[row of (t, j)]` in ascending order of experts.
    fn combine(&self, x: &[f32], weights: Option<&[f32]>, k: usize, y: &mut [f32], d: usize) {
        let rows = rows_per_task(k * d);
        self.cx.workers.for_each_chunk(y, rows * d, |at, y| {
            for (i, y) in y.chunks_exact_mut(d).enumerate() {
                let pairs = (at * rows + i) * k..(at * rows + i + 1) * k;
                self.cx.level.run(Combine {
                    x,
                    rows: &self.groups.rows[pairs.clone()],
                    weights: weights.map(|weights| &weights[pairs]),
                    y,
                });
            }
        });
    }
}

struct Combine<'a> {
    x: &'a [f32],
    rows: &'a [usize],
    /// One without.
    weights: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let d = self.y.len();
        for at in (0..d).step_by(S::LANES) {
            let mut sum = s.splat(0.0);
            for (j, &row) in self.rows.iter().enumerate() {
                let weight = s.splat(self.weights.map_or(1.0, |weights| weights[j]));
                sum = s.fma(
                    weight,
                    s.load(&self.x[row * d + at..(row + 1) * d], 0.0),
                    sum,
                );
            }
            s.store(&mut self.y[at..], sum);
        }
    }
}

/// See [`crate::backend::Backend::experts`].
pub(crate) fn experts(cx: Context<'_>, args: ExpertsArgs<'_>) -> Result<()> {
    let [_, d] = args.x.matrix_shape(OP)?;
    let [_, k] = args.ids.matrix_shape(OP)?;
    let [gate, up, down] = args.experts;
    for w in args.experts {
        if let ExpertWeights::Packed(w) = w
            && Right::packed(w, OP)?.experts() != args.n_experts
        {
            let what = "the packed weight is that of another number of experts";
            return Err(Error::InvalidArgument { op: OP, what });
        }
    }
    let f = match down {
        ExpertWeights::Tensor(w) => w.shape()[2],
        ExpertWeights::Packed(w) => w.k(),
    };
    let groups = &Groups::new(args.ids, args.n_experts)?;
    let rows = groups.tokens.len();
    let products = Products {
        cx,
        precision: args.precision,
        groups,
    };
    let (y, weights) = (args.y.f32s_mut()?, args.weights.f32s()?);
    let mut own;
    let [gate_out, up_out] = match args.hidden {
        Some([gate, up]) => [gate.f32s_mut()?, up.f32s_mut()?],
        None => {
            own = [0, 1].map(|_| cx.pool.take(rows * f * 4));
            own.each_mut().map(|buffer| buffer.f32s_mut())
        }
    };
    if rows * d * f == 0 {
        gate_out.fill(0.0);
        up_out.fill(0.0);
        y.fill(0.0);
        return Ok(());
    }
    let left = products.left_of_tokens(args.x, &products.kinds([gate, up]))?;
    products.multiply(&left, gate, f, gate_out)?;
    products.multiply(&left, up, f, up_out)?;
    let (gate, up) = (&*gate_out, &*up_out);
    let left = products.left(f, &products.kinds([down]), |row, y| {
        let of_row = row * f..(row + 1) * f;
        let (gate, up) = (&gate[of_row.clone()], &up[of_row]);
        cx.level.run(Forward { gate, up, y });
    });
    let mut outputs = cx.pool.take(rows * d * 4);
    products.multiply(&left, down, d, outputs.f32s_mut())?;
    products.combine(outputs.f32s(), Some(weights), k, y, d);
    Ok(())
}

/// The gradient of one row: of what its expert's down was multiplied by, to everything before.
struct RowBackward<'a> {
    weight: f32,
    gate: &'a [f32],
    up: &'a [f32],
    /// Gradient of the input of down, without the expert's weight; then with it.
    dh: &'a mut [f32],
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
    weighted: &'a mut [f32],
}

impl Kernel for RowBackward<'_> {
    type Output = f32;
    /// Returns the gradient of the weight.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Self {
            gate,
            up,
            dh,
            weighted,
            ..
        } = self;
        Forward {
            gate,
            up,
            y: &mut *weighted,
        }
        .run(s);
        let (mut dot, weight) = (s.splat(0.0), s.splat(self.weight));
        for at in (0..dh.len()).step_by(S::LANES) {
            let (h, slope) = (s.load(&weighted[at..], 0.0), s.load(&dh[at..], 0.0));
            dot = s.fma(h, slope, dot);
            s.store(&mut weighted[at..], s.mul(weight, h));
            s.store(&mut dh[at..], s.mul(weight, slope));
        }
        Backward {
            gate,
            up,
            dy: dh,
            dgate: self.dgate,
            dup: self.dup,
        }
        .run(s);
        s.sum(dot)
    }
}

/// See [`crate::backend::Backend::experts_backward`].
pub(crate) fn experts_backward(cx: Context<'_>, args: ExpertsBackwardArgs<'_>) -> Result<()> {
    let [gate, up, down] = args.experts;
    let (n_experts, f, d) = (gate.shape()[0], gate.shape()[1], gate.shape()[2]);
    let groups = &Groups::new(args.ids, n_experts)?;
    let rows = groups.tokens.len();
    let k = args.ids.shape()[1];
    let weights = args.weights.f32s()?;
    let dweights = args.dweights.f32s_mut()?;
    let [dgate, dup] = args.dhidden;
    let (dgate, dup, weighted) = (
        dgate.f32s_mut()?,
        dup.f32s_mut()?,
        args.weighted.f32s_mut()?,
    );
    if rows * d * f == 0 {
        dweights.fill(0.0);
        for out in [dgate, dup, weighted] {
            out.fill(0.0);
        }
        return args.dx.map_or(Ok(()), Tensor::fill_zero);
    }
    let products = Products {
        cx,
        precision: args.precision,
        groups,
    };
    let mut dh = cx.pool.take(rows * f * 4);
    let left = products.left_of_tokens(args.dy, &[LeftKind::of_values(args.precision)])?;
    products.multiply_matrices(&left, |e| Matrix::of(down, e), f, dh.f32s_mut(), false)?;
    let [gate_out, up_out] = [args.hidden[0].f32s()?, args.hidden[1].f32s()?];
    let (dh, dw) = (Shared::new(dh.f32s_mut()), Shared::new(dweights));
    let [dgate_out, dup_out, weighted] = [&mut *dgate, &mut *dup, weighted].map(Shared::new);
    cx.workers.for_each(rows, |pair| {
        let row = groups.rows[pair];
        let of_row = row * f..(row + 1) * f;
        // SAFETY: every pair has its own row, and only this task has this pair.
        #[expect(unsafe_code, reason = "rows are written in parallel")]
        let ([dh, dgate, dup, weighted], dw) = unsafe {
            let outputs = [dh, dgate_out, dup_out, weighted];
            (outputs.map(|out| out.range(row * f, f)), dw.range(pair, 1))
        };
        dw[0] = cx.level.run(RowBackward {
            weight: weights[pair],
            gate: &gate_out[of_row.clone()],
            up: &up_out[of_row],
            dh,
            dgate,
            dup,
            weighted,
        });
    });
    let Some(dx) = args.dx else { return Ok(()) };
    let mut of_rows = cx.pool.take(rows * d * 4);
    // In the order in which a tape plays dense layers.
    for (dy, w, accumulate) in [(&*dup, up, false), (&*dgate, gate, true)] {
        let left = products.left(f, &[LeftKind::of_values(args.precision)], |row, out| {
            out.copy_from_slice(&dy[row * f..(row + 1) * f]);
        });
        let out = of_rows.f32s_mut();
        products.multiply_matrices(&left, |e| Matrix::of(w, e), d, out, accumulate)?;
    }
    products.combine(of_rows.f32s(), None, k, dx.f32s_mut()?, d);
    Ok(())
}

/// See [`crate::backend::Backend::expert_gradient`].
pub(crate) fn expert_gradient(cx: Context<'_>, args: ExpertGradientArgs<'_>) -> Result<()> {
    let &[n_experts, n, k] = args.dw.shape() else {
        unreachable!("the gradient of three axes")
    };
    if n * k == 0 {
        return Ok(());
    }
    let groups = Groups::new(args.ids, n_experts)?;
    let dw = args.dw.f32s_mut()?;
    for (e, rows) in &groups.hits {
        let gathered = |of: ExpertRows<'_>| -> Result<crate::storage::Buffer> {
            let (ExpertRows::OfTokens(x) | ExpertRows::Grouped(x)) = of;
            let [_, width] = x.matrix_shape(OP)?;
            let x = Matrix::of(x, 0)?;
            let mut out = cx.pool.take(rows.len() * width * 4);
            for (row, out) in rows.clone().zip(out.f32s_mut().chunks_exact_mut(width)) {
                let row = match of {
                    ExpertRows::OfTokens(_) => groups.tokens[row],
                    ExpertRows::Grouped(_) => row,
                };
                x.copy_row(row, out);
            }
            Ok(out)
        };
        let (dy, x) = (gathered(args.dy)?, gathered(args.x)?);
        let [dy, x] = [(&dy, n), (&x, k)].map(|(rows, width)| Matrix {
            data: Values::F32(rows.f32s()),
            row_stride: width,
            column_stride: 1,
        });
        let (dy, x, size) = (dy.transposed(), Right::Matrix(x), [n, k, rows.len()]);
        let dw = &mut dw[e * n * k..(e + 1) * n * k];
        matmul::gemm(cx, args.precision, dy, &x, size, (dw, true))?;
    }
    Ok(())
}
