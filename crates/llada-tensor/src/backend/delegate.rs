//! The list of ops that a backend has in a function each.

/// Methods of [`Backend`](crate::backend::Backend), inside its `impl`, that hand their arguments to
/// the function of the same name: `rms_norm_backward(args)` is
/// `rms_norm::rms_norm_backward(context, args)`, with the modules that are in scope.
///
/// `delegate_ops!(self => context)`, where `context` is what every function takes first.
#[macro_export]
macro_rules! delegate_ops {
    (@ $self:ident, $context:expr;
     $($module:ident :: $op:ident($($arg:ident: $type:ty),*) -> $output:ty;)*) => {$(
        fn $op(&$self, $($arg: $type),*) -> $crate::Result<$output> {
            $module::$op($context, $($arg),*)
        }
    )*};
    ($self:ident => $context:expr) => { $crate::delegate_ops! { @ $self, $context;
        matmul::matmul(args: $crate::backend::MatmulArgs<'_>) -> ();
        matmul::matmul_each(
            a: &$crate::Tensor,
            weights: &[&std::sync::Arc<dyn $crate::backend::PackedWeight>],
            outputs: &mut [$crate::Tensor],
            precision: $crate::Precision
        ) -> ();
        matmul::pack(
            shape: [usize; 2],
            precision: $crate::Precision,
            fill: $crate::backend::FillRows<'_>
        ) -> std::sync::Arc<dyn $crate::backend::PackedWeight>;
        matmul::pack_codes(
            shape: [usize; 2],
            precision: $crate::Precision,
            fill: $crate::backend::FillCodes<'_>
        ) -> std::sync::Arc<dyn $crate::backend::PackedWeight>;
        embedding::embedding(table: &$crate::Tensor, ids: &[u32], y: &mut $crate::Tensor) -> ();
        embedding::write_rows(table: &mut $crate::Tensor, first: usize, x: &$crate::Tensor) -> ();
        embedding::embedding_backward(
            dy: &$crate::Tensor,
            ids: &[u32],
            dtable: &mut $crate::Tensor
        ) -> ();
        add::add(x: &$crate::Tensor, z: &$crate::Tensor, y: &mut $crate::Tensor) -> ();
        add::add_into(x: &$crate::Tensor, y: &mut $crate::Tensor) -> ();
        add::axpby(a: f32, x: &$crate::Tensor, b: f32, y: &mut $crate::Tensor) -> ();
        add::column_sum(x: &$crate::Tensor, y: &mut $crate::Tensor) -> ();
        rms_norm::rms_norm(args: $crate::backend::RmsNormArgs<'_>) -> ();
        rms_norm::rms_norm_backward(args: $crate::backend::RmsNormBackwardArgs<'_>) -> ();
        rope::rope(args: $crate::backend::RopeArgs<'_>) -> ();
        attention::attention(args: $crate::backend::AttentionArgs<'_>) -> ();
        attention::attention_backward(args: $crate::backend::AttentionBackwardArgs<'_>) -> ();
        swiglu::swiglu(args: $crate::backend::SwigluArgs<'_>) -> ();
        swiglu::swiglu_backward(args: $crate::backend::SwigluBackwardArgs<'_>) -> ();
        moe::pack_experts(
            shape: [usize; 3],
            precision: $crate::Precision,
            fill: $crate::backend::FillRows<'_>
        ) -> std::sync::Arc<dyn $crate::backend::PackedWeight>;
        moe::pack_expert_codes(
            shape: [usize; 3],
            precision: $crate::Precision,
            fill: $crate::backend::FillCodes<'_>
        ) -> std::sync::Arc<dyn $crate::backend::PackedWeight>;
        moe::route(args: $crate::backend::RouteArgs<'_>) -> ();
        moe::route_backward(args: $crate::backend::RouteBackwardArgs<'_>) -> ();
        moe::experts(args: $crate::backend::ExpertsArgs<'_>) -> ();
        moe::experts_backward(args: $crate::backend::ExpertsBackwardArgs<'_>) -> ();
        moe::expert_gradient(args: $crate::backend::ExpertGradientArgs<'_>) -> ();
        cross_entropy::cross_entropy(args: $crate::backend::CrossEntropyArgs<'_>) -> ();
        cross_entropy::cross_entropy_backward(
            args: $crate::backend::CrossEntropyBackwardArgs<'_>
        ) -> ();
        candidates::candidates(
            args: $crate::backend::CandidateArgs<'_>
        ) -> Vec<$crate::backend::Candidate>;
        adamw::adamw(args: $crate::backend::AdamWArgs<'_>) -> ();
        adamw::sums_of_squares(tensors: &[&$crate::Tensor]) -> Vec<f64>;
    } };
}
