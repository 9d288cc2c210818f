//! Sampling modules through the reference interpreter, with small models whose outputs are known.

use selvedge_ir::interp::Run;
use selvedge_ir::{DType, Interpreter, Module, Precision, Tensor, verify::verify};
use selvedge_model::{Graph, Tensor as Value, concat};
use selvedge_zoo::guidance::Guided;
use selvedge_zoo::program::{Conditioning, Decoder, PipelineInfo, Request, request, run_of_plan};
use selvedge_zoo::random::normals;
use selvedge_zoo::samplers::diffusers::Spacing;
use selvedge_zoo::samplers::{Ddim, FlowMatchEuler, FlowMethod, Gaussian, RectifiedFlow, Sampler};
use selvedge_zoo::sampling::{Denoiser, Guidance, recorded_module, sampling_module};
use std::collections::BTreeMap;

/// dx/dt = RATE · cos(t) · x, so that x(0) = x(1) · exp(−RATE · sin 1).
struct Decay;
const RATE: f64 = 2.0;
const TIMESTEP_SCALE: f64 = 1000.0;

impl Denoiser for Decay {
    fn sample_shape(&self) -> [usize; 3] {
        [1, 1, 2]
    }
    fn forward(&self, _: &Graph, x: &Value, timesteps: &Value, _: &Value) -> Value {
        let t = timesteps * (1.0 / TIMESTEP_SCALE);
        x * (t.cos() * RATE).reshape([x.size(0), 1, 1, 1])
    }
}

/// Output channel k of a sample with label y is x_k + (k + 1) · y; channels beyond x's are 0.1 · y.
struct Linear {
    channels: usize,
    outputs: usize,
}

impl Denoiser for Linear {
    fn sample_shape(&self) -> [usize; 3] {
        [self.channels, 1, 1]
    }
    fn forward(&self, g: &Graph, x: &Value, _: &Value, labels: &Value) -> Value {
        let labels = labels.cast(DType::F32).reshape([x.size(0), 1, 1, 1]);
        let factor = g.arange(DType::F32, self.channels).reshape([1, self.channels, 1, 1]) + 1.0;
        let output = x + factor * &labels;
        match self.outputs - self.channels {
            0 => output,
            more => concat(&[&output, &(labels * 0.1).broadcast_to([x.size(0), more, 1, 1])], 1),
        }
    }
}

fn module(model: &dyn Denoiser, sampler: &Sampler, guidance: Guidance, batch: usize) -> Module {
    let module = sampling_module("test", model, sampler, guidance, batch, |_| None).unwrap();
    verify(&module).unwrap();
    module
}

fn latents(module: &Module, run: &Run, precision: Precision) -> Vec<f64> {
    let none = BTreeMap::new();
    let output = Interpreter::new(module, &none).precision(precision).run(run, &mut |_| {}).unwrap();
    output.outputs["latents"].to_f64()
}

/// |x(0) − exact| of the flow with a number of steps.
fn flow_error(method: FlowMethod, steps: usize) -> f64 {
    let sampler = Sampler::RectifiedFlow(RectifiedFlow { method, timestep_scale: TIMESTEP_SCALE });
    let module = module(&Decay, &sampler, Guidance::Off, 1);
    let first = Tensor::f32(&[1, 1, 1, 2], vec![1.0, -0.5]);
    let mut run = run_of_plan(&sampler, &sampler.plan(steps).unwrap(), [1, 1, 1, 2], first, |_| Vec::new());
    run.inputs.insert("class_labels".into(), Tensor::i32(&[1], vec![0]));
    let exact = (-RATE * 1f64.sin()).exp();
    let got = latents(&module, &run, Precision::F64);
    assert!((got[1] / got[0] + 0.5).abs() < 1e-6, "the flow is linear");
    (got[0] - exact).abs()
}

#[test]
fn euler_converges_in_first_order_and_heun_in_second() {
    for (method, order) in [(FlowMethod::Euler, 1.0), (FlowMethod::Heun, 2.0)] {
        for steps in [16, 32, 64] {
            let measured = (flow_error(method, steps) / flow_error(method, 2 * steps)).log2();
            assert!((measured - order).abs() < 0.2, "{method:?} at {steps} steps: order {measured:.3}");
        }
    }
    assert!(flow_error(FlowMethod::Heun, 32) < flow_error(FlowMethod::Euler, 64), "at equal cost");
}

#[test]
fn heun_runs_its_last_step_as_euler() {
    let sampler = RectifiedFlow { method: FlowMethod::Heun, timestep_scale: 1.0 };
    assert_eq!(sampler.plan(3).unwrap().functions, [1, 1, 0]);
    assert_eq!(flow_error(FlowMethod::Heun, 1), flow_error(FlowMethod::Euler, 1));
}

/// One Euler step from x = 0 with dt = −1 gives −output.
#[test]
fn guidance_acts_on_its_channels_only() {
    let sampler = Sampler::RectifiedFlow(RectifiedFlow { method: FlowMethod::Euler, timestep_scale: 1.0 });
    let model = Linear { channels: 4, outputs: 4 };
    let (label, null, scale) = (2.0, 5.0, 3.0);
    for (guided, count) in [(Guided::All, 4), (Guided::First(3), 3), (Guided::First(9), 4)] {
        let module = module(&model, &sampler, Guidance::On { guided, null_class: 5 }, 1);
        let first = Tensor::f32(&[1, 4, 1, 1], vec![0.0; 4]);
        let mut run = run_of_plan(&sampler, &sampler.plan(1).unwrap(), [1, 4, 1, 1], first, |_| Vec::new());
        run.inputs.insert("class_labels".into(), Tensor::i32(&[1], vec![2]));
        run.inputs.insert("guidance_scale".into(), Tensor::f32(&[], vec![scale as f32]));
        let want: Vec<f64> =
            (0..4).map(|k| -((k + 1) as f64) * if k < count { null + scale * (label - null) } else { label }).collect();
        assert_eq!(latents(&module, &run, Precision::F64), want, "{guided:?}");
    }
}

/// The first half of a carried doubled batch does not depend on the second: it is what the program without it computes.
#[test]
fn carrying_both_halves_changes_nothing_for_the_first() {
    let sampler = Sampler::Gaussian(Gaussian::new(true));
    let model = Linear { channels: 4, outputs: 8 };
    let guided = Guided::First(3);
    let plan = sampler.plan(6).unwrap();
    let draw = |n: usize, step: u32| normals(1, 0, step, n);
    let run = |batch: usize, labels: Vec<i32>| {
        let first = Tensor::f32(&[batch, 4, 1, 1], draw(4 * batch, 0));
        let mut run = run_of_plan(&sampler, &plan, [batch, 4, 1, 1], first, |k| draw(4 * batch, k as u32 + 1));
        run.inputs.insert("class_labels".into(), Tensor::i32(&[batch], labels));
        run.inputs.insert("guidance_scale".into(), Tensor::f32(&[], vec![1.5]));
        run
    };
    let half = latents(
        &module(&model, &sampler, Guidance::On { guided, null_class: 3 }, 2),
        &run(2, vec![0, 1]),
        Precision::F32,
    );
    let both =
        latents(&module(&model, &sampler, Guidance::Carried { guided }, 4), &run(4, vec![0, 1, 3, 3]), Precision::F32);
    assert_eq!(half[..], both[..8]);
    assert_ne!(both[..8], both[8..]);
}

/// Heun's method takes the velocity of a model that predicts a variance, too.
#[test]
fn variance_channels_are_left_out_where_they_are_not_used() {
    for method in [FlowMethod::Euler, FlowMethod::Heun] {
        let sampler = Sampler::RectifiedFlow(RectifiedFlow { method, timestep_scale: 1.0 });
        let run_with = |outputs: usize| {
            let module = module(&Linear { channels: 4, outputs }, &sampler, Guidance::Off, 1);
            let first = Tensor::f32(&[1, 4, 1, 1], normals(1, 0, 0, 4));
            let mut run = run_of_plan(&sampler, &sampler.plan(3).unwrap(), [1, 4, 1, 1], first, |_| Vec::new());
            run.inputs.insert("class_labels".into(), Tensor::i32(&[1], vec![2]));
            latents(&module, &run, Precision::F32)
        };
        assert_eq!(run_with(4), run_with(8), "{method:?}");
    }
}

#[test]
fn steps_that_a_schedule_does_not_define_are_refused() {
    let flow = FlowMatchEuler { shift_terminal: Some(0.1), ..FlowMatchEuler::default() };
    let error = Sampler::FlowMatchEuler(flow).plan(1).unwrap_err().to_string();
    assert!(error.contains("step 0 of 1"), "{error}");
    let mut ddim = Ddim::default();
    (ddim.discrete.rescale_betas_zero_snr, ddim.discrete.timestep_spacing) = (true, Spacing::Trailing);
    let error = Sampler::Ddim(ddim).plan(5).unwrap_err().to_string();
    assert!(error.contains("epsilon prediction is not defined at timestep 999"), "{error}");
    let flow = Sampler::RectifiedFlow(RectifiedFlow { method: FlowMethod::Euler, timestep_scale: 1.0 });
    assert!(flow.plan(usize::MAX).unwrap_err().to_string().contains("too many steps"));
}

#[test]
fn learned_range_needs_a_model_that_predicts_it() {
    let sampler = Sampler::Gaussian(Gaussian::new(true));
    let error = recorded_module("test", &sampler, [1, 4, 2, 2], 4).unwrap_err().to_string();
    assert!(error.contains("learned-range") && error.contains("twice"), "{error}");
    recorded_module("test", &sampler, [1, 4, 2, 2], 8).unwrap();
}

fn info() -> PipelineInfo {
    PipelineInfo {
        name: "test".into(),
        family: "dit".into(),
        batch: 3,
        latent_shape: [4, 1, 1],
        image_shape: None,
        pixel_range: [-1.0, 1.0],
        conditioning: Conditioning::Class { num_classes: 3, null_class: 3 },
        guided: Some(Guided::All),
        embedded_guidance: false,
        guidance_floor: false,
        default_steps: 5,
        default_guidance_scale: 2.5,
        sampler: Sampler::Gaussian(Gaussian::new(true)),
        decoder: Decoder::Missing("nothing decodes".into()),
        packing: 1,
    }
}

#[test]
fn requests_become_runs_that_modules_take() {
    let info = info();
    let model = Linear { channels: 4, outputs: 8 };
    let guidance = Guidance::On { guided: Guided::All, null_class: 3 };
    let module = module(&model, &info.sampler, guidance, info.batch);
    let ask = |labels: Vec<usize>, first_image: u64| Request { labels, first_image, seed: 9, ..Request::default() };
    let all = latents(&module, &request(&info, &ask(vec![0, 1, 2], 0)).unwrap(), Precision::F32);
    // Image 1 alone is the same image; the rest of the batch is filled and ignored.
    let one = latents(&module, &request(&info, &ask(vec![1], 1)).unwrap(), Precision::F32);
    assert_eq!(all[4..8], one[..4]);
    let run = request(&info, &Request { steps: Some(7), guidance_scale: Some(1.0), ..ask(vec![0], 0) }).unwrap();
    assert_eq!((run.steps.len(), run.inputs["guidance_scale"].to_f64()), (7, vec![1.0]));
    assert_eq!(run.tables["noise"].sizes(), [7, 3, 4, 1, 1]);
    // A deterministic sampler takes no noise.
    let calm = PipelineInfo { sampler: Sampler::Ddim(Ddim::default()), ..info };
    assert!(!request(&calm, &ask(vec![0], 0)).unwrap().tables.contains_key("noise"));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let info = info();
    let refuse = |info: &PipelineInfo, request_: Request, says: &[&str]| {
        let error = request(info, &request_).unwrap_err().to_string();
        says.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not said in: {error}"));
    };
    let ask = |labels: Vec<usize>| Request { labels, ..Request::default() };
    refuse(&info, ask(vec![3]), &["label 3", "0 to 2"]);
    refuse(&info, ask(vec![]), &["1 to 3 labels", "0"]);
    refuse(&info, ask(vec![0; 4]), &["1 to 3 labels", "4"]);
    refuse(&info, Request { steps: Some(0), ..ask(vec![0]) }, &["at least one step"]);
    refuse(&info, Request { steps: Some(1001), ..ask(vec![0]) }, &["1000 steps", "1001"]);
    refuse(&info, Request { guidance_scale: Some(f64::NAN), ..ask(vec![0]) }, &["guidance scale"]);
    let unguided = PipelineInfo { guided: None, ..info };
    refuse(&unguided, Request { guidance_scale: Some(2.0), ..ask(vec![0]) }, &["without guidance"]);
}

#[test]
fn pipeline_info_survives_json() {
    let samplers = [
        Sampler::Gaussian(Gaussian { timestep_respacing: Some("ddim10".into()), ..Gaussian::new(false) }),
        Sampler::Ddim(Ddim { eta: 0.3, ..Ddim::default() }),
        Sampler::Ddpm(Default::default()),
        Sampler::FlowMatchEuler(Default::default()),
        Sampler::DpmSolver(Default::default()),
        Sampler::EulerDiscrete(Default::default()),
        Sampler::RectifiedFlow(RectifiedFlow { method: FlowMethod::Heun, timestep_scale: 1000.0 }),
    ];
    for sampler in samplers {
        let info = PipelineInfo { sampler, decoder: Decoder::Pixels, ..info() };
        let text = serde_json::to_string(&info).unwrap();
        assert_eq!(serde_json::from_str::<PipelineInfo>(&text).unwrap(), info, "{text}");
    }
}
