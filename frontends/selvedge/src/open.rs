//! Models by name: shipped ones, folders, compiled files. Each becomes a [`Source`] that runs on any device.

use crate::compile::{self, Compiled, Options, Settings};
use crate::device::Device;
use crate::error::Error;
use crate::event::Observer;
use crate::gpu::{Gpu, GpuSession};
use crate::link::LinkedFiles;
use crate::memory::{self, Freedom, Residency};
use crate::prompt::Tokenizers;
use crate::selftest;
use crate::session::Session;
use crate::weights::{self, Cached, Weights};
use selvedge_bundle::manifest::{Link, Manifest};
use selvedge_bundle::{Bundle, WeightBytes};
use selvedge_import::model::Architecture;
use selvedge_import::{LoadedModel, MappedFile, ProgramOptions, SHIPPED};
use selvedge_ir::{Diagnostic, Module};
use selvedge_runtime::Refill;
use selvedge_zoo::program::{PipelineInfo, Program};
use selvedge_zoo::samplers::{Ddim, FlowMethod, Gaussian, GaussianMethod, RectifiedFlow, Sampler};
use std::path::Path;
use std::sync::Arc;

/// What a model's name stands for.
pub enum Opened {
    /// A folder or a shipped model.
    Model(Box<LoadedModel>),
    /// A compiled file.
    Bundle(BundleFile),
}

/// A compiled file in memory.
pub struct BundleFile {
    /// Its name, for messages.
    pub path: String,
    /// The user takes its maker's word: its kernels run without bounds checks and loop bounding (they do not by default).
    pub trusted: bool,
    bytes: Arc<MappedFile>,
}

/// Something that makes pictures, of one batch size.
pub enum Source {
    /// A program with weights, compiled when a device is known.
    Program {
        /// Module and pipeline.
        program: Box<Program>,
        /// Its weights.
        weights: Weights,
        /// What reads prompts.
        tokenizers: Tokenizers,
    },
    /// A compiled file.
    Bundle {
        /// The file.
        file: BundleFile,
        /// Its pipeline.
        info: Box<PipelineInfo>,
    },
}

impl Opened {
    /// Opens a shipped model (`digits`), a model folder or a compiled file.
    ///
    /// # Errors
    /// There is nothing of this name, or what there is, is damaged or of an unknown kind.
    pub fn open(name: &str) -> Result<Opened, Error> {
        let path = Path::new(name);
        if !SHIPPED.contains(&name) && path.is_file() {
            return BundleFile::open(path).map(Opened::Bundle);
        }
        Ok(Opened::Model(Box::new(selvedge_import::load(name)?)))
    }
    /// The same with [`BundleFile::trusted`]; kernels of other models are made here and need no trust.
    pub fn trusted(mut self, trusted: bool) -> Opened {
        if let Opened::Bundle(file) = &mut self {
            file.trusted = trusted;
        }
        self
    }
    /// The model is asked by text, not by a class. A compiled file tells in its pipeline.
    pub fn takes_text(&self) -> bool {
        match self {
            Opened::Model(model) => matches!(model.architecture, Architecture::Text(_)),
            Opened::Bundle(_) => false,
        }
    }
    /// Pixels (height and width) of the pictures that a model makes with these options; `None` for a compiled file.
    ///
    /// # Errors
    /// A size that the model does not make.
    pub fn pixels(&self, options: &ProgramOptions) -> Result<Option<[usize; 2]>, Error> {
        match self {
            Opened::Model(model) => Ok(Some(model.pixels(options)?)),
            Opened::Bundle(_) => Ok(None),
        }
    }
    /// Its sampling program for `batch` images. A compiled file has its own batch.
    ///
    /// # Errors
    /// As [`Opened::source_with`].
    pub fn source(self, batch: usize, sampler: Option<&str>) -> Result<Source, Error> {
        self.source_with(ProgramOptions { batch, ..ProgramOptions::default() }, sampler)
    }
    /// Its sampling program. A compiled file has its own options.
    ///
    /// # Errors
    /// An unknown sampler, or another sampler for a compiled file; options that do not fit the model; what the model code finds wrong.
    pub fn source_with(self, options: ProgramOptions, sampler: Option<&str>) -> Result<Source, Error> {
        match self {
            Opened::Model(model) => {
                let sampler = sampler.map(|name| choose_sampler(&model, name)).transpose()?;
                let program = Box::new(model.program(&ProgramOptions { sampler, ..options })?);
                let tokenizers = match model.architecture {
                    Architecture::Dit(_) => Tokenizers::default(),
                    Architecture::Text(text) => Tokenizers(text.tokenizers),
                };
                Ok(Source::Program { program, weights: Arc::new(Cached::new(model.checkpoint)), tokenizers })
            }
            Opened::Bundle(file) => {
                if sampler.is_some() {
                    let what = Diagnostic::new("sampler", format!("`{}` is compiled with its sampler", file.path));
                    return Err(what.help("choose the sampler when compiling").into());
                }
                file.linked()?; // a file that is missing is found before a device is opened
                let info = file.manifest()?.pipeline;
                let info = serde_json::from_value(info).map_err(|_| {
                    Diagnostic::new("bundle", format!("`{}` holds no sampling program", file.path))
                        .help("it was compiled from a module; its functions can be called from Rust")
                })?;
                Ok(Source::Bundle { file, info: Box::new(info) })
            }
        }
    }
}

fn choose_sampler(model: &LoadedModel, name: &str) -> Result<Sampler, Error> {
    let own = &model.sampling.sampler;
    let flow = |method| match own {
        Sampler::RectifiedFlow(s) => Ok(Sampler::RectifiedFlow(RectifiedFlow { method, ..s.clone() })),
        _ => Err(()),
    };
    let gaussian = |method| match own {
        Sampler::Gaussian(s) => Ok(Sampler::Gaussian(Gaussian { method, ..s.clone() })),
        _ => Err(()),
    };
    let chosen = match name {
        "euler" => flow(FlowMethod::Euler),
        "heun" => flow(FlowMethod::Heun),
        "ddpm" => gaussian(GaussianMethod::Ddpm),
        "ddim" => match own {
            Sampler::Ddim(s) => Ok(Sampler::Ddim(Ddim::clone(s))),
            _ => gaussian(GaussianMethod::Ddim { eta: 0.0 }),
        },
        _ => Err(()),
    };
    chosen.map_err(|()| {
        let fitting = match own {
            Sampler::RectifiedFlow(_) => "euler, heun",
            Sampler::Gaussian(_) => "ddpm, ddim",
            Sampler::Ddim(_) => "ddim",
            Sampler::Ddpm(_) | Sampler::DpmSolver(_) | Sampler::EulerDiscrete(_) | Sampler::FlowMatchEuler(_) => {
                "none but its own"
            }
        };
        let what = Diagnostic::new("sampler", format!("sampler `{name}` does not fit `{}`", model.name));
        what.help(format!("samplers that fit: {fitting}")).into()
    })
}

impl BundleFile {
    /// Maps a file and checks it.
    ///
    /// # Errors
    /// It cannot be read, is no bundle, of a later format, or damaged.
    pub fn open(path: &Path) -> Result<BundleFile, Error> {
        let bytes = MappedFile::open(path)
            .map_err(|e| Diagnostic::new("bundle", format!("cannot read `{}`: {e}", path.display())))?;
        let file = BundleFile { path: path.display().to_string(), trusted: false, bytes: Arc::new(bytes) };
        if let Err(error) = file.bundle() {
            let lora = selvedge_import::Checkpoint::open_file(path).is_ok_and(|c| c.is_lora());
            return Err(if lora {
                selvedge_import::checkpoint::lora(&format!("`{}`", file.path)).into()
            } else {
                error
            });
        }
        Ok(file)
    }
    /// The checked contents.
    ///
    /// # Errors
    /// As [`BundleFile::open`].
    pub fn bundle(&self) -> Result<Bundle<'_>, Error> {
        selvedge_bundle::read(&self.bytes)
            .map_err(|e| Diagnostic::new("bundle", format!("`{}`: {e}", self.path)).into())
    }
    /// The manifest.
    ///
    /// # Errors
    /// As [`BundleFile::open`].
    pub fn manifest(&self) -> Result<Manifest, Error> {
        Ok(self.bundle()?.manifest().clone())
    }
    /// The checkpoint files that it links to; none if its weights are embedded.
    ///
    /// # Errors
    /// As [`BundleFile::open`]; a linked file that is missing.
    pub fn linked(&self) -> Result<LinkedFiles, Error> {
        let folder = Path::new(&self.path).parent().unwrap_or(Path::new(""));
        Ok(LinkedFiles::open(self.bundle()?.manifest(), folder)?)
    }
    /// Its module.
    ///
    /// # Errors
    /// As [`BundleFile::open`]; a module of another version of the text form.
    pub fn module(&self) -> Result<Module, Error> {
        crate::text::parse(&self.path, self.bundle()?.module().to_string())
    }
    /// Makes it ready on a device.
    ///
    /// # Errors
    /// The device lacks what it needs, weights are damaged or missing, device trouble.
    pub fn session(&self, device: &Device, events: &mut Observer) -> Result<Session, Error> {
        self.session_within(device, None, events)
    }
    /// The same in at most so many bytes of device memory (see [`memory::fit`]).
    ///
    /// # Errors
    /// As [`BundleFile::session`]; it does not fit.
    pub fn session_within(
        &self,
        device: &Device,
        max_memory: Option<u64>,
        events: &mut Observer,
    ) -> Result<Session, Error> {
        let (bundle, linked) = (self.bundle()?, self.linked()?);
        match device {
            Device::Gpu(gpu) => {
                let budget = max_memory.or_else(|| memory::available(device));
                let residency = memory::fit(bundle.manifest(), budget, Freedom::default())?;
                selftest::check(gpu, bundle.selftests(), self.trusted)?;
                self.load(gpu, residency, events).map(Session::gpu)
            }
            Device::Host => Ok(Session::host(self.module()?, Arc::new(weights::of_bundle(&bundle, &linked)?))),
        }
    }
}

impl BundleFile {
    /// Loads it; if it loses its device, it is opened and loaded again.
    fn load(&self, gpu: &Gpu, residency: Residency, events: &mut Observer) -> Result<GpuSession, Error> {
        let bundle = self.bundle()?;
        let staged = (residency == Residency::Staged).then(|| self.refill(&bundle)).transpose()?;
        let session = GpuSession::load_staged(gpu, &bundle, &self.linked()?, self.trusted, staged, events)?;
        let (path, trusted) = (self.path.clone(), self.trusted);
        Ok(session.reloading(Box::new(move |gpu| {
            let file = BundleFile { trusted, ..BundleFile::open(Path::new(&path))? };
            file.load(gpu, residency, &mut |_| {})
        })))
    }
    /// Reads weights again, where they are; they are checked now.
    fn refill(&self, bundle: &Bundle<'_>) -> Result<Refill, Error> {
        enum Place {
            Here(std::ops::Range<usize>),
            Linked(Link),
        }
        let linked = self.linked()?;
        let mut places = Vec::new();
        for i in 0..bundle.manifest().weights.len() {
            let bad = |e: String| Diagnostic::new("bundle", format!("`{}`: {e}", self.path));
            places.push(match bundle.weight(i).map_err(|e| bad(e.to_string()))? {
                WeightBytes::Here(bytes) => {
                    let start = bytes.as_ptr() as usize - self.bytes.as_ptr() as usize; // it borrows from the map
                    Place::Here(start..start + bytes.len())
                }
                WeightBytes::Linked(link) => {
                    linked.checked(bundle, i, link)?;
                    Place::Linked(link.clone())
                }
            });
        }
        let bytes = self.bytes.clone();
        Ok(Arc::new(move |i| match places.get(i) {
            Some(Place::Here(range)) => Ok(bytes[range.clone()].to_vec()),
            Some(Place::Linked(link)) => linked.bytes(link).map(<[u8]>::to_vec).map_err(|e| e.to_string()),
            None => Err(format!("there is no weight {i}")),
        }))
    }
}

impl Source {
    /// What it makes, and how.
    pub fn info(&self) -> &PipelineInfo {
        match self {
            Source::Program { program, .. } => &program.info,
            Source::Bundle { info, .. } => info,
        }
    }
    /// What reads prompts; nothing for models without text.
    ///
    /// # Errors
    /// A compiled file without its tokenizers.
    pub fn tokenizers(&self) -> Result<Tokenizers, Error> {
        match self {
            Source::Program { tokenizers, .. } => Ok(tokenizers.clone()),
            Source::Bundle { file, info } => {
                let bundle = file.bundle()?;
                Tokenizers::read(info, |name| bundle.file(name))
            }
        }
    }
    /// Compiles it, so that it fits into the memory that the settings allow.
    ///
    /// # Errors
    /// It is compiled already; see [`memory::compile_to_fit`].
    pub fn compile(&self, options: &Options) -> Result<Compiled, Error> {
        match self {
            Source::Program { program, weights, tokenizers } => {
                let (module, pipeline) = (program.module.clone(), compile::pipeline(&program.info));
                let budget = options.settings.max_memory;
                let (mut compiled, _) = memory::compile_to_fit(module, weights.clone(), pipeline, options, budget)?;
                tokenizers.files()?.into_iter().for_each(|(name, bytes)| compiled.add_file(&name, bytes));
                Ok(compiled)
            }
            Source::Bundle { file, .. } => {
                let what = Diagnostic::new("compile", format!("`{}` is compiled already", file.path));
                Err(what.expected_found("a model folder or a shipped model", "a compiled file").into())
            }
        }
    }
    /// Makes it ready on a device.
    ///
    /// # Errors
    /// The device lacks what it needs, weights are damaged, device trouble.
    pub fn session(&self, device: &Device, settings: &Settings, events: &mut Observer) -> Result<Session, Error> {
        match self {
            Source::Program { program, weights, .. } => compile::session_with(
                program.module.clone(),
                weights.clone(),
                compile::pipeline(&program.info),
                device,
                settings,
                events,
            ),
            Source::Bundle { file, .. } => file.session_within(device, settings.max_memory, events),
        }
    }
}
