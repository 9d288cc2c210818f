//! The arithmetic of a step on the device.

use super::{Coefficients, Noise, StepForm};
use selvedge_ir::Diagnostic;
use selvedge_model::Tensor;

/// What a step gives.
pub struct Stepped {
    /// The next x.
    pub next: Tensor,
    /// The predicted x0, if the form has one.
    pub pred_xstart: Option<Tensor>,
}

/// x as the model sees it.
#[track_caller]
pub fn model_input(form: &StepForm, x: &Tensor, coefficients: &Tensor) -> Tensor {
    if form.scales_input { x * Row(coefficients).input_scale() } else { x.clone() }
}

/// One affine step. `x` is [B, C, H, W]; `output` is the model's, [B, C or 2·C, H, W]; `coefficients` is a row of the
/// table (f32[11], see [`Coefficients`]); `noise` has x's shape and is given unless the form has none; `history` are the earlier
/// predictions of x0, the last step's first.
#[track_caller]
pub fn affine(
    form: &StepForm,
    x: &Tensor,
    output: &Tensor,
    coefficients: &Tensor,
    noise: Option<&Tensor>,
    history: &[Tensor],
) -> Stepped {
    let row = Row(coefficients);
    let channels = x.size(1);
    let (m, v) = match output.size(1) {
        c if c == channels => (output.clone(), None),
        _ => (output.narrow(1, 0, channels), Some(output.narrow(1, channels, channels))),
    };
    let pred_xstart = form.predicts_x0.then(|| {
        let x0 = x * row.x0_from_x() + &m * row.x0_from_m();
        let x0 = form.clip.map_or(x0.clone(), |c| x0.clamp(-c, c));
        x0.named("pred_xstart")
    });
    let mut next = x * row.next_from_x();
    if let Some(x0) = &pred_xstart {
        next = x0 * row.next_from_x0() + next;
    }
    if form.direct {
        next = next + &m * row.next_from_m();
    }
    for (x0, share) in history.iter().zip([Row::next_from_previous, Row::next_from_older]) {
        next = next + x0 * share(&row);
    }
    if let (Some(noise), Some(deviation)) = (noise, deviation(form, &row, v.as_ref(), x)) {
        next = next + noise * deviation;
    }
    Stepped { next, pred_xstart }
}

/// One step of Heun's method: slope at x, Euler's point, slope there, and the step with their mean. `slope(x, second)`
/// evaluates the model, at the step's end if `second` holds.
#[track_caller]
pub fn heun(x: &Tensor, coefficients: &Tensor, slope: impl Fn(&Tensor, bool) -> Tensor) -> Tensor {
    let dt = Row(coefficients).next_from_m();
    let slope = |x: &Tensor, second: bool| first_channels(&slope(x, second), x.size(1));
    let first = slope(x, false);
    let second = slope(&(x + &first * &dt), true);
    x + (first + second) * (dt * 0.5)
}

/// The first `count` channels; nothing is cut where there are no more.
#[track_caller]
pub(crate) fn first_channels(t: &Tensor, count: usize) -> Tensor {
    if t.size(1) == count { t.clone() } else { t.narrow(1, 0, count) }
}

/// Multiplies the noise.
#[track_caller]
fn deviation(form: &StepForm, row: &Row, v: Option<&Tensor>, x: &Tensor) -> Option<Tensor> {
    match (form.noise, v) {
        (Noise::None, _) => None,
        (Noise::Scaled, _) => Some(row.deviation()),
        (Noise::LearnedRange, Some(v)) => {
            let share = (v + 1.0) * 0.5;
            let log_variance = &share * row.log_variance_max() + (1.0 - &share) * row.log_variance_min();
            Some((log_variance * 0.5).exp() * row.deviation())
        }
        (Noise::LearnedRange, None) => Some(
            x.graph().fail(
                Diagnostic::new("sampler", "learned-range variance needs a model that predicts it")
                    .expected_found("twice as many output channels as input channels", "as many"),
            ),
        ),
    }
}

/// A row of the table `coefficients`; entries are f32 scalars, in the order of [`Coefficients`].
struct Row<'a>(&'a Tensor);

macro_rules! entries {
    ($($name:ident = $index:literal),*) => { impl Row<'_> { $(
        #[track_caller]
        fn $name(&self) -> Tensor {
            const { assert!($index < Coefficients::COUNT) };
            self.0.narrow(0, $index, 1).reshape([]).named(stringify!($name))
        }
    )* } };
}
entries!(
    x0_from_x = 0,
    x0_from_m = 1,
    next_from_x0 = 2,
    next_from_x = 3,
    next_from_m = 4,
    deviation = 5,
    log_variance_min = 6,
    log_variance_max = 7,
    next_from_previous = 8,
    next_from_older = 9,
    input_scale = 10
);
