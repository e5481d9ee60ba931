//! Reverse-mode differentiation over the ops of [`crate::ops`].
//!
//! A [`Tape`] evaluates ops at once. When it records, each op also leaves a closure that turns
//! the gradient of its output into gradients of its inputs; [`Tape::backward`] runs them in
//! reverse. A tape that does not record frees every intermediate as soon as it is dropped, so
//! that one model code serves training and inference.

use std::collections::BTreeSet;
use std::fmt;

use crate::ops::add::add_into;
use crate::{DType, Device, Error, Precision, Result, Tensor};

/// A value on a tape; cheap to clone.
#[derive(Debug, Clone)]
pub struct Var {
    value: Tensor,
    id: Option<usize>,
}

impl Var {
    /// The value.
    #[must_use]
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// A value that needs no gradient.
    #[must_use]
    pub fn constant(value: Tensor) -> Self {
        Self { value, id: None }
    }

    /// The same place on the tape, with its value in another form.
    pub(crate) fn with_value(&self, value: Tensor) -> Self {
        let id = self.id;
        Self { value, id }
    }

    pub(crate) fn needs_grad(&self) -> bool {
        self.id.is_some()
    }

    /// Where it was made, for a gradient that needs nothing of the value.
    pub(crate) fn place(&self) -> Place {
        Place(self.id)
    }
}

/// A place on a tape, if it is one that needs a gradient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(Option<usize>);

impl Place {
    pub(crate) fn needs_grad(self) -> bool {
        self.0.is_some()
    }
}

impl From<&Var> for Place {
    fn from(x: &Var) -> Self {
        x.place()
    }
}

type BackwardFn = Box<dyn FnOnce(&Tensor, &mut GradSink<'_>) -> Result<()>>;

enum Node {
    Parameter(usize),
    /// An input whose gradient is asked for.
    Leaf,
    Op(Option<BackwardFn>),
    /// An op that takes its gradient in the form of operands too.
    Product(Option<BackwardFn>),
}

/// Evaluates ops and, if it records, can differentiate through them.
pub struct Tape {
    device: Device,
    precision: Precision,
    recording: bool,
    nodes: Vec<Node>,
    /// The first op that takes each parameter, ascending: the last to add to its gradient.
    first_uses: Vec<FirstUse>,
    used: BTreeSet<usize>,
}

/// An op, by its node, and a parameter that no op before it takes.
#[derive(Clone, Copy)]
struct FirstUse {
    node: usize,
    parameter: usize,
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape")
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl Tape {
    /// A tape that records, for training.
    #[must_use]
    pub fn recording(device: &Device, precision: Precision) -> Self {
        Self {
            device: device.clone(),
            precision,
            recording: true,
            nodes: Vec::new(),
            first_uses: Vec::new(),
            used: BTreeSet::new(),
        }
    }

    /// A tape that only evaluates.
    #[must_use]
    pub fn inference(device: &Device, precision: Precision) -> Self {
        Self {
            recording: false,
            ..Self::recording(device, precision)
        }
    }

    /// The device that the tape runs on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Precision of the operands of matrix products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether gradients can be asked for.
    pub(crate) fn is_recording(&self) -> bool {
        self.recording
    }

    /// A parameter; its gradient is added to entry `index` of the [`Gradients`].
    #[must_use]
    pub fn parameter(&mut self, index: usize, value: &Tensor) -> Var {
        let value = value.clone();
        match self.recording {
            true => self.push_value(value, Node::Parameter(index)),
            false => Var::constant(value),
        }
    }

    /// The output of an op. `backward` gets the gradient of `value`; it is kept only if the tape
    /// records and one of the `inputs` needs a gradient.
    pub(crate) fn push(
        &mut self,
        value: Tensor,
        inputs: &[&Var],
        backward: impl FnOnce(&Tensor, &mut GradSink<'_>) -> Result<()> + 'static,
    ) -> Var {
        self.push_node(value, inputs, Node::Op(Some(Box::new(backward))))
    }

    /// As [`Self::push`], of an op whose `backward` gets the gradient as
    /// [`crate::ops::matmul::operand`] makes it, or in `f32`.
    pub(crate) fn push_product(
        &mut self,
        value: Tensor,
        inputs: &[&Var],
        backward: impl FnOnce(&Tensor, &mut GradSink<'_>) -> Result<()> + 'static,
    ) -> Var {
        self.push_node(value, inputs, Node::Product(Some(Box::new(backward))))
    }

    fn push_node(&mut self, value: Tensor, inputs: &[&Var], node: Node) -> Var {
        if !self.recording || !inputs.iter().any(|input| input.needs_grad()) {
            return Var::constant(value);
        }
        for id in inputs.iter().filter_map(|input| input.id) {
            if let Node::Parameter(parameter) = self.nodes[id] {
                self.note_use(parameter);
            }
        }
        self.push_value(value, node)
    }

    fn push_value(&mut self, value: Tensor, node: Node) -> Var {
        self.nodes.push(node);
        let id = Some(self.nodes.len() - 1);
        Var { value, id }
    }

    /// Notes that the op which comes next takes a parameter.
    fn note_use(&mut self, parameter: usize) {
        if self.used.insert(parameter) {
            let node = self.nodes.len();
            self.first_uses.push(FirstUse { node, parameter });
        }
    }

    /// What `body` makes of `x`. Of all that it computes only `x` is kept: in the backward pass it
    /// runs a second time (activation checkpointing, arXiv 1604.06174). Gradients have the bits
    /// that they have without it.
    ///
    /// `body` does the same ops whenever it runs, and takes parameters by [`Self::parameter`].
    ///
    /// # Errors
    /// Those of `body`.
    pub fn checkpoint(
        &mut self,
        x: &Var,
        body: impl Fn(&mut Self, &Var) -> Result<Var> + 'static,
    ) -> Result<Var> {
        if !self.recording {
            return body(self, x);
        }
        let (mut once, leaf) = self.of_leaf(x);
        let value = body(&mut once, &leaf)?.value;
        for parameter in once.used {
            self.note_use(parameter);
        }
        let (x, device, precision) = (x.clone(), self.device.clone(), self.precision);
        let backward: BackwardFn = Box::new(move |dy, sink| {
            let (mut again, leaf) = Self::recording(&device, precision).of_leaf(&x);
            let y = body(&mut again, &leaf)?;
            let on_final = &mut |_, _: &Gradients| Ok(());
            match again.play(&y, dy.clone(), sink.gradients, on_final)? {
                Some(dx) => sink.add(&x, dx),
                None => Ok(()),
            }
        });
        Ok(self.push_value(value, Node::Op(Some(backward))))
    }

    /// A new tape that begins with a value whose gradient may be asked for.
    fn of_leaf(&self, x: &Var) -> (Self, Var) {
        let mut tape = Self::recording(&self.device, self.precision);
        let value = x.value.clone();
        let leaf = match x.needs_grad() {
            true => tape.push_value(value, Node::Leaf),
            false => Var::constant(value),
        };
        (tape, leaf)
    }

    /// Adds the gradients of the scalar `loss` to `gradients` and empties the tape.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `loss` is not a scalar of this tape; errors of the ops.
    pub fn backward(&mut self, loss: &Var, gradients: &mut Gradients) -> Result<()> {
        self.backward_with(loss, gradients, &mut |_, _| Ok(()))
    }

    /// As [`Self::backward`]; calls `on_final` for each parameter that an op took, as soon as
    /// nothing more will be added to its gradient: while the rest of the tape is still to be
    /// played, in the reverse order of first use.
    ///
    /// # Errors
    /// As [`Self::backward`]; errors of `on_final`.
    pub fn backward_with(
        &mut self,
        loss: &Var,
        gradients: &mut Gradients,
        on_final: &mut dyn FnMut(usize, &Gradients) -> Result<()>,
    ) -> Result<()> {
        if loss.value.numel() != 1 {
            return Err(not_on_tape());
        }
        let dy = Tensor::from_f32(&self.device, loss.value.shape(), &[1.0])?;
        self.play(loss, dy, gradients, on_final).map(|_| ())
    }

    /// Plays the tape from `y`, whose gradient is `dy`, and empties it; returns the gradient of a
    /// leaf that it begins with.
    fn play(
        &mut self,
        y: &Var,
        dy: Tensor,
        gradients: &mut Gradients,
        on_final: &mut dyn FnMut(usize, &Gradients) -> Result<()>,
    ) -> Result<Option<Tensor>> {
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut first_uses = std::mem::take(&mut self.first_uses);
        self.used.clear();
        let id =
            y.id.filter(|&id| id < nodes.len())
                .ok_or_else(not_on_tape)?;
        let mut pending: Vec<Option<Tensor>> = vec![None; nodes.len()];
        pending[id] = Some(dy);
        for at in (0..=id).rev() {
            if let Some(dy) = pending[at].take() {
                let backward = match &mut nodes[at] {
                    Node::Op(backward) | Node::Product(backward) => backward.take(),
                    // Only the loss gets here: gradients of other parameters go to their sums.
                    Node::Parameter(index) => {
                        add_into(&mut gradients.tensors[*index], &dy)?;
                        None
                    }
                    Node::Leaf => return Ok(Some(dy)),
                };
                if let Some(backward) = backward {
                    let mut sink = GradSink {
                        nodes: &nodes,
                        pending: &mut pending,
                        gradients,
                    };
                    backward(&dy, &mut sink)?;
                }
            }
            while let Some(first) = first_uses.pop_if(|last| last.node >= at) {
                on_final(first.parameter, gradients)?;
            }
        }
        Ok(None)
    }
}

fn not_on_tape() -> Error {
    let what = "the loss must be a scalar on this tape that depends on a parameter";
    Error::InvalidArgument {
        op: "backward",
        what,
    }
}

/// Receives the gradients of an op's inputs.
pub(crate) struct GradSink<'a> {
    nodes: &'a [Node],
    pending: &'a mut [Option<Tensor>],
    gradients: &'a mut Gradients,
}

impl GradSink<'_> {
    /// Adds `dx` to the gradient of `x`.
    pub(crate) fn add(&mut self, x: impl Into<Place>, dx: Tensor) -> Result<()> {
        let x = x.into();
        let Some(id) = x.0 else { return Ok(()) };
        match self.sum(x)? {
            Some(sum) if dx.dtype() == DType::F32 => add_into(sum, &dx),
            Some(sum) => add_into(sum, &dx.to_dtype(DType::F32)?),
            None => {
                self.pending[id] = Some(dx);
                Ok(())
            }
        }
    }

    /// Whether a gradient in the form of operands is what the op that made `x` takes, and the only
    /// one so far.
    pub(crate) fn takes_operand(&self, x: Place) -> bool {
        x.0.is_some_and(|id| {
            matches!(self.nodes[id], Node::Product(_)) && self.pending[id].is_none()
        })
    }

    /// The gradient of `x` so far, to be added to in place: that of a parameter, or what ops have
    /// added to another value; `None` if that is nothing.
    pub(crate) fn sum(&mut self, x: impl Into<Place>) -> Result<Option<&mut Tensor>> {
        let Some(id) = x.into().0 else {
            return Ok(None);
        };
        if let Node::Parameter(index) = self.nodes[id] {
            return Ok(Some(&mut self.gradients.tensors[index]));
        }
        let sum = &mut self.pending[id];
        if let Some(sum) = sum
            && (sum.dtype() != DType::F32 || !sum.is_unique())
        {
            *sum = sum.to_dtype(DType::F32)?;
        }
        Ok(sum.as_mut())
    }
}

/// One gradient per parameter, in the parameters' order.
#[derive(Debug)]
pub struct Gradients {
    tensors: Vec<Tensor>,
}

impl Gradients {
    /// Zeros in the shapes of the parameters.
    ///
    /// # Errors
    /// If they do not fit into memory.
    pub fn zeros_like<'a>(parameters: impl IntoIterator<Item = &'a Tensor>) -> Result<Self> {
        let zeros = |p: &Tensor| Tensor::zeros(p.device(), DType::F32, p.shape());
        Ok(Self {
            tensors: parameters.into_iter().map(zeros).collect::<Result<_>>()?,
        })
    }

    /// Sets every gradient to zero.
    ///
    /// # Errors
    /// [`Error::SharedOutput`] if a clone of a gradient is still alive.
    pub fn zero(&mut self) -> Result<()> {
        for tensor in &mut self.tensors {
            tensor.fill_zero()?;
        }
        Ok(())
    }

    /// The gradients.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The gradients, to be written (reduced over peers, scaled).
    #[must_use]
    pub fn tensors_mut(&mut self) -> &mut [Tensor] {
        &mut self.tensors
    }
}
