//! What holds of every plan, checked before it is given out.
//!
//! - P1 regions start at multiples of 256 bytes and lie in their buffer.
//! - P2 a dispatch names a kernel that exists, and binds what the kernel declares, with the buffers' usage.
//! - P3 bindings are not larger, and not more, than the target allows; windows of one dispatch do not overlap.
//! - P4 group counts are between 1 and the target's limit.
//! - P5 buffers are not larger than the target allows, and their sizes are multiples of 256.
//! - P6 copies are between regions of equal size that do not overlap; those of a move begin at any word.
//! - P7 weight slots cover their weights without gaps; ports hold their elements, a word each.
//! - P8 what a dispatch reads, and what a function returns, is what was last written there; a dispatch writes no memory
//!   that it reads as another tensor. (Checked while the plan is made: the plan itself does not say who reads.)

use crate::access::Touch;
use crate::target::Target;
use crate::tensor::{Tensor, TensorId};
use selvedge_bundle::manifest::{ALIGN, Manifest, Plan, Port, Region, WeightSlot};
use selvedge_bundle::weight_bytes;
use selvedge_ir::{Diagnostic, Diagnostics};
use std::collections::BTreeMap;

/// Checks a plan.
///
/// # Errors
/// All violations, by number.
pub fn verify(plan: &Plan, manifest: &Manifest, target: &Target) -> Result<(), Diagnostics> {
    let mut check = Check { plan, errors: Vec::new() };
    for buffer in &plan.buffers {
        let legal = buffer.bytes <= target.max_buffer_bytes && buffer.bytes.is_multiple_of(ALIGN);
        check.that(legal, "P5", || format!("buffer `{}` of {} bytes", buffer.label, buffer.bytes));
    }
    check.weights(manifest);
    for function in &plan.functions {
        for port in function.inputs.iter().chain(&function.outputs) {
            check.port(&function.name, port);
        }
        for dispatch in &function.dispatches {
            let place = format!("@{} {}", function.name, dispatch.label);
            let Some(kernel) = manifest.kernels.get(dispatch.kernel as usize) else {
                check.that(false, "P2", || format!("{place} names kernel {}", dispatch.kernel));
                continue;
            };
            check.that(kernel.bindings.len() == dispatch.bindings.len(), "P2", || format!("{place} binds too few"));
            check.that(dispatch.bindings.len() <= target.storage_buffers as usize, "P3", || {
                format!("{place} binds {} buffers", dispatch.bindings.len())
            });
            for (i, (region, usage)) in dispatch.bindings.iter().zip(&kernel.bindings).enumerate() {
                check.region(&place, region);
                let buffer = plan.buffers.get(region.buffer as usize);
                check.that(buffer.is_some_and(|b| b.access == *usage), "P2", || format!("{place}, usage of b{i}"));
                let size = region.bytes.is_multiple_of(ALIGN) && region.bytes <= target.max_binding_bytes;
                check.that(size, "P3", || format!("{place}, b{i} of {} bytes", region.bytes));
                let alone = dispatch.bindings[..i].iter().all(|other| !overlap(other, region));
                check.that(alone, "P3", || format!("{place}, b{i} overlaps another binding"));
            }
            let groups = dispatch.groups.iter().all(|g| (1..=target.max_groups).contains(g));
            check.that(groups, "P4", || format!("{place}, groups {:?}", dispatch.groups));
        }
        let moved = function.moves.iter().flat_map(|m| m.copies.iter().map(|copy| (copy, 4)));
        for (copy, align) in function.copies.iter().map(|copy| (copy, ALIGN)).chain(moved) {
            let place = format!("@{} copy", function.name);
            check.aligned(&place, &copy.source, align);
            check.aligned(&place, &copy.destination, align);
            let legal = copy.source.bytes == copy.destination.bytes && !overlap(&copy.source, &copy.destination);
            check.that(legal, "P6", || place);
        }
    }
    if check.errors.is_empty() { Ok(()) } else { Err(Diagnostics(check.errors)) }
}

/// P8 for one function: `held` has its contents before the first dispatch, `dispatches` are what each touches, and
/// `wanted` must be there in the end.
///
/// # Errors
/// All violations.
pub fn flow(
    function: &str,
    tensors: &[Tensor],
    held: &[TensorId],
    dispatches: &[Vec<Touch>],
    wanted: &[TensorId],
) -> Result<(), Diagnostics> {
    let mut errors = Vec::new();
    let mut holds = vec![false; tensors.len()];
    // By buffer: what lies in another one is not written over. What is held no more may still be listed.
    let mut lying: BTreeMap<u32, Vec<(Region, TensorId)>> = BTreeMap::new();
    for tensor in held {
        if !std::mem::replace(&mut holds[*tensor], true) {
            tensors[*tensor].pieces.iter().for_each(|p| lying.entry(p.buffer).or_default().push((*p, *tensor)));
        }
    }
    let mut fault = |tensor: TensorId, what: &str| {
        let message = format!("@{function}: `{}` {what}", tensors[tensor].label);
        errors.push(Diagnostic::new("plan P8", message).help(FAULT));
    };
    let shares = |a: TensorId, b: TensorId| {
        a != b && tensors[a].pieces.iter().any(|x| tensors[b].pieces.iter().any(|y| overlap(x, y)))
    };
    for touches in dispatches {
        for read in touches.iter().filter(|t| t.read && tensors[t.tensor].elements > 0) {
            if !holds[read.tensor] {
                fault(read.tensor, "is read, and its memory holds something else");
            }
        }
        for write in touches.iter().filter(|t| t.written) {
            if touches.iter().any(|t| t.read && shares(t.tensor, write.tensor)) {
                fault(write.tensor, "is written over an operand");
            }
            for piece in &tensors[write.tensor].pieces {
                lying.entry(piece.buffer).or_default().retain(|(region, other)| {
                    let kept = *other == write.tensor || !overlap(region, piece);
                    if !kept {
                        holds[*other] = false;
                    }
                    kept
                });
            }
            if !std::mem::replace(&mut holds[write.tensor], true) {
                let pieces = tensors[write.tensor].pieces.iter();
                pieces.for_each(|p| lying.entry(p.buffer).or_default().push((*p, write.tensor)));
            }
        }
    }
    for tensor in wanted.iter().filter(|t| tensors[**t].elements > 0 && !holds[**t]) {
        fault(*tensor, "is returned, and its memory holds something else");
    }
    if errors.is_empty() { Ok(()) } else { Err(Diagnostics(errors)) }
}

/// What to do about a plan that is wrong.
const FAULT: &str = "this is a fault of the compiler; please report it with the module";

/// Two regions share bytes.
pub fn overlap(a: &Region, b: &Region) -> bool {
    a.buffer == b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes
}

struct Check<'a> {
    plan: &'a Plan,
    errors: Vec<Diagnostic>,
}

impl Check<'_> {
    fn that(&mut self, holds: bool, code: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.errors.push(Diagnostic::new(format!("plan {code}"), message()).help(FAULT));
        }
    }
    fn region(&mut self, place: &str, region: &Region) {
        self.aligned(place, region, ALIGN);
    }
    fn aligned(&mut self, place: &str, region: &Region, align: u64) {
        let size = self.plan.buffers.get(region.buffer as usize).map_or(0, |b| b.bytes);
        let legal = region.offset.is_multiple_of(align) && region.offset + region.bytes <= size;
        self.that(legal, "P1", || {
            format!("{place}: {} bytes at {} of buffer {}", region.bytes, region.offset, region.buffer)
        });
    }
    fn port(&mut self, function: &str, port: &Port) {
        let place = format!("@{function} `{}`", port.name);
        port.regions.iter().for_each(|r| self.region(&place, r));
        let bytes: u64 = port.regions.iter().map(|r| r.bytes).sum();
        let words = port.shape.iter().product::<u64>() * 4;
        self.that(bytes == words, "P7", || format!("{place}: {bytes} bytes for {words}"));
    }
    fn weights(&mut self, manifest: &Manifest) {
        let mut slots: BTreeMap<u32, Vec<&WeightSlot>> = BTreeMap::new();
        self.plan.weights.iter().for_each(|s| slots.entry(s.weight).or_default().push(s));
        for (index, weight) in (0..).zip(&manifest.weights) {
            let mut end = 0;
            for slot in slots.get(&index).into_iter().flatten() {
                let size = self.plan.buffers.get(slot.region.buffer as usize).map_or(0, |b| b.bytes);
                let legal = slot.region.offset.is_multiple_of(4) && slot.region.offset + slot.region.bytes <= size;
                self.that(legal, "P1", || format!("weight `{}` at {:?}", weight.name, slot.region));
                self.that(slot.start == end, "P7", || format!("slots of weight `{}`", weight.name));
                end = slot.start + slot.region.bytes;
            }
            let bytes = weight_bytes(&weight.dtype, &weight.shape);
            self.that(bytes == Some(end), "P7", || format!("weight `{}` has {end} bytes in slots", weight.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, compile};
    use selvedge_bundle::manifest::{Copy, Move};
    use selvedge_ir::DType;
    use selvedge_shaders::memory::Layout;

    fn codes(result: Result<(), Diagnostics>) -> Vec<String> {
        result.err().map_or(Vec::new(), |e| e.0.into_iter().map(|d| d.code).collect())
    }

    #[test]
    fn every_damage_to_a_plan_is_named() {
        let text = "weight \"w\" : f32[8,70]\n
fn @f(%x: f32[4,70]) -> f32[4,8] {
  %w = weight \"w\" : f32[8,70]
  %y = contract %x, %w spec=[ik,jk->ij] dtype=f32 : f32[4,8]
  return y=%y\n}\n";
        let module = selvedge_ir::parse::parse(text).expect("the text is right");
        let target = Target::portable();
        let compiled = compile(&module, &target, &Options::default()).expect("it compiles");
        type Damage = fn(&mut Plan);
        let damages: [(&str, Damage); 10] = [
            ("plan P1", |p| p.functions[0].inputs[0].regions[0].offset += 4),
            ("plan P1", |p| p.buffers[1].bytes -= ALIGN),
            ("plan P2", |p| p.functions[0].dispatches[0].kernel = 9),
            ("plan P2", |p| p.functions[0].dispatches[0].bindings.truncate(1)),
            ("plan P3", |p| p.functions[0].dispatches[0].bindings[2] = p.functions[0].dispatches[0].bindings[0]),
            ("plan P4", |p| p.functions[0].dispatches[0].groups[1] = 0),
            ("plan P5", |p| p.buffers[0].bytes = 1 << 40),
            ("plan P6", |p| {
                let region = p.functions[0].outputs[0].regions[0];
                let copies = vec![Copy { source: region, destination: region }];
                let (label, origins) = (String::new(), Vec::new());
                p.functions[0].moves = vec![Move { after: 0, copies, label, origins, bytes: 0, weight_bytes: 0 }];
            }),
            ("plan P7", |p| p.weights.clear()),
            ("plan P7", |p| p.functions[0].outputs[0].shape[0] = 5),
        ];
        for (code, damage) in damages {
            let mut plan = compiled.plan().clone();
            assert_eq!(codes(verify(&plan, &compiled.manifest, &target)), [""; 0]);
            damage(&mut plan);
            let found = codes(verify(&plan, &compiled.manifest, &target));
            assert!(found.iter().any(|c| c == code), "{code} is not among {found:?}");
        }
    }

    #[test]
    fn contents_that_are_overwritten_are_missed() {
        let at = |offset| {
            let pieces = vec![Region { buffer: 0, offset, bytes: 256 }];
            Tensor {
                label: offset.to_string(),
                dtype: DType::F32,
                layout: Layout::Words,
                elements: 64,
                panels: None,
                pieces,
            }
        };
        let touch = |tensor, written: bool| Touch {
            tensor,
            low: 0,
            high: 15,
            read: !written,
            written,
            by_quads: true,
            sets_words: false,
        };
        // Tensors 0 and 2 share memory.
        let tensors = [at(0), at(256), at(0)];
        let copy = vec![touch(0, false), touch(1, true)];
        let other = vec![touch(1, false), touch(2, true)];
        assert_eq!(codes(flow("f", &tensors, &[0], &[copy.clone(), other.clone()], &[2])), [""; 0]);
        assert_eq!(codes(flow("f", &tensors, &[0], &[copy, other], &[0])), ["plan P8"]);
        assert_eq!(codes(flow("f", &tensors, &[], &[vec![touch(0, false)]], &[])), ["plan P8"]);
        let over = vec![touch(0, false), touch(2, true)];
        assert_eq!(codes(flow("f", &tensors, &[0], &[over], &[2])), ["plan P8"]);
    }
}
