//! Views: merged, cancelled, moved.

use crate::saturate::{Match, Phase, Rule, Term};
use selvedge_ir::ops::Transpose;

pub(super) fn rules() -> Vec<Rule> {
    vec![Rule::new(
        "transpose-of-transpose",
        "transpose p (transpose q x) = transpose (q∘p) x, and x itself if q∘p is the identity",
        Phase::Layout,
        &["(transpose ?p (transpose ?q ?x))"],
        |m: &Match| {
            let (p, q): (Vec<usize>, Vec<usize>) = (m.attr("p"), m.attr("q"));
            let perm: Vec<usize> = p.iter().map(|&i| q[i]).collect();
            if perm.iter().copied().eq(0..perm.len()) {
                return Ok(m.term("x"));
            }
            Ok(Term::op(Transpose { perm }, [m.term("x")]))
        },
    )]
}
