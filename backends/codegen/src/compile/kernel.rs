//! Kernels: equal texts are one kernel, and every new one is validated.

use super::Compiler;
use crate::emit::Context;
use crate::lower::{Shader, refuse};
use crate::select;
use selvedge_bundle::manifest::{Access as Usage, Kernel, Region};
use selvedge_ir::Diagnostic;
use selvedge_shaders::source::{Access as Binding, Unit};

impl Compiler<'_> {
    /// The target must bind this.
    pub(super) fn needs_bindings(&mut self, bindings: &[(Region, Usage)]) {
        let needs = &mut self.needs;
        needs.storage_buffers = needs.storage_buffers.max(bindings.len() as u32);
        needs.max_binding_bytes = bindings.iter().map(|(r, _)| r.bytes).max().unwrap_or(0).max(needs.max_binding_bytes);
    }

    /// The index of a kernel, which is validated when it is new.
    pub(super) fn kernel(
        &mut self,
        context: Context,
        unit: &select::Unit,
        shader: Shader,
        helpers: String,
        bindings: &[(Region, Usage)],
        wide: &[bool],
    ) -> Result<u32, Diagnostic> {
        let mut source = shader.source.clone().functions(helpers);
        for ((_, usage), wide) in bindings.iter().zip(wide) {
            let access = match usage {
                Usage::Read => Binding::Read,
                Usage::ReadWrite => Binding::ReadWrite,
            };
            source = source.binding_of(access, if *wide { Unit::Pairs } else { Unit::Words });
        }
        let text = source.text();
        if let Some(index) = self.known.get(&text) {
            return Ok(*index);
        }
        let needs = &mut self.needs;
        needs.invocations = needs.invocations.max(shader.workgroup.iter().product());
        needs.workgroup_bytes = needs.workgroup_bytes.max(shader.workgroup_bytes);
        if shader.subgroups || shader.cooperative {
            needs.subgroup_size = self.target.subgroup.map(|s| s.max);
        }
        let wide = wide.contains(&true);
        let features = [
            ("subgroups", shader.subgroups || shader.cooperative),
            ("shader-int64", wide),
            ("shader-f16", shader.cooperative),
            ("cooperative-matrix", shader.cooperative),
        ];
        for (feature, needed) in features {
            if needed && !needs.features.iter().any(|f| f == feature) {
                needs.features.push(feature.to_string());
                needs.features.sort();
            }
        }
        validate(&text, &shader, wide).map_err(|e| {
            refuse(context, unit.root(), format!("the {} kernel is not valid WGSL ({e}), for a value", shader.family))
                .help("this is a fault of the compiler; please report it with the module")
        })?;
        let index = self.kernels.len() as u32;
        self.kernels.push(Kernel {
            name: shader.family.to_string(),
            choice: shader.choice.map_or(String::new(), |(key, name)| format!("{key}: {name}")),
            hash: selvedge_bundle::hash(text.as_bytes()),
            workgroup: shader.workgroup,
            bindings: bindings.iter().map(|(_, usage)| *usage).collect(),
        });
        self.known.insert(text.clone(), index);
        self.texts.push(text);
        Ok(index)
    }
}

/// Parses and validates a shader as wgpu will.
fn validate(text: &str, shader: &Shader, wide: bool) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    // `unpack2x16float` is in every WebGPU device; naga keeps a switch for older GL.
    let mut capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if shader.subgroups {
        capabilities |= naga::valid::Capabilities::SUBGROUP;
    }
    if shader.cooperative {
        capabilities |= naga::valid::Capabilities::COOPERATIVE_MATRIX | naga::valid::Capabilities::SHADER_FLOAT16;
    }
    if wide {
        capabilities |= naga::valid::Capabilities::SHADER_INT64;
    }
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    validator.validate(&module).map(|_| ()).map_err(|e| e.emit_to_string(text))
}
