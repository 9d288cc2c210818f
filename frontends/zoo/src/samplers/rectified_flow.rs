//! Rectified flow: x(t) = (1 − t)·data + t·noise, the model predicts the velocity noise − data, and the sampler
//! follows it from t = 1 to t = 0.

use super::{Coefficients, Noise, StepForm, StepKind, StepPlan};
use selvedge_ir::Diagnostic;
use serde::{Deserialize, Serialize};

/// A rectified-flow sampler with equal steps of t.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RectifiedFlow {
    /// How the flow is followed.
    pub method: FlowMethod,
    /// The model receives t · timestep_scale.
    pub timestep_scale: f64,
}

/// The integration method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowMethod {
    /// One evaluation a step, first order.
    Euler,
    /// Two evaluations a step, second order; the last step, which ends at t = 0, is Euler's (Karras et al. 2022).
    Heun,
}

impl RectifiedFlow {
    /// What the steps compute.
    pub fn form(&self) -> StepForm {
        let functions = match self.method {
            FlowMethod::Euler => vec![StepKind::Affine],
            FlowMethod::Heun => vec![StepKind::Affine, StepKind::Heun],
        };
        StepForm {
            functions,
            predicts_x0: false,
            direct: true,
            clip: None,
            noise: Noise::None,
            history: 0,
            scales_input: false,
        }
    }
    /// The coefficients of `steps` equal steps.
    ///
    /// # Errors
    /// None; the signature is that of all samplers.
    pub fn plan(&self, steps: usize) -> Result<StepPlan, Diagnostic> {
        let t = |k: usize| 1.0 - k as f64 / steps as f64;
        let coefficients = (0..steps).map(|k| Coefficients {
            next_from_x: 1.0,
            next_from_m: t(k + 1) - t(k),
            ..Coefficients::default()
        });
        let timesteps = (0..steps).map(|k| t(k) * self.timestep_scale).collect();
        let mut plan = StepPlan::affine(timesteps, coefficients.collect());
        plan.next_timesteps = (1..=steps).map(|k| t(k) * self.timestep_scale).collect();
        if self.method == FlowMethod::Heun {
            plan.functions = (0..steps).map(|k| usize::from(k + 1 < steps)).collect();
        }
        Ok(plan)
    }
}
