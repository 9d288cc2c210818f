//! `selvedge devices`: what can be run on.

use crate::common::{bytes, out};
use crate::{Error, Outcome};
use selvedge::device;
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Error> {
    let adapters = device::adapters();
    if args.json {
        let list: Vec<_> = adapters.iter().map(device::facts_json).collect();
        let host = json!({"name": "host", "kind": "cpu", "driver": selvedge::Device::Host.driver()});
        out!("{}", json!({"devices": list, "host": host}));
        return Ok(Outcome::Done);
    }
    if adapters.is_empty() {
        out!("no GPU adapter (a Vulkan, Metal or DX12 driver is needed; Mesa's lavapipe is one for any CPU)");
    }
    for a in &adapters {
        out!("{}: {}", a.index, a.name);
        out!("   {} {}, {}", a.backend, a.kind, a.driver);
        out!(
            "   buffers to {}, bindings to {}, {} storage buffers",
            bytes(a.max_buffer_bytes),
            bytes(a.max_binding_bytes),
            a.storage_buffers
        );
        out!(
            "   workgroups of {} with {}, {} a dimension",
            a.invocations,
            bytes(a.workgroup_bytes.into()),
            a.max_groups
        );
        let subgroups = match a.subgroup {
            Some((min, max)) if min == max => format!("subgroups of {min}"),
            Some((min, max)) => format!("subgroups of {min} to {max}"),
            None => "no subgroups".to_string(),
        };
        let f16 = if a.f16 { "f16" } else { "no f16" };
        out!("   {subgroups}, {f16}, {}", if a.timestamps { "timestamps" } else { "no timestamps" });
    }
    out!("host: {}", selvedge::Device::Host.driver());
    Ok(Outcome::Done)
}
