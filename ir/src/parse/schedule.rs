//! The schedule block.

use super::cursor::{Cursor, unknown};
use crate::diag::Diagnostic;
use crate::module::{Schedule, StepLoop, TableDecl, Tabulate};

impl Cursor<'_> {
    /// `{ … }` after `schedule`, one stage a line. Errors of a line are collected; those of the braces end the block.
    pub fn schedule(&mut self) -> Result<(Schedule, Vec<Diagnostic>), Diagnostic> {
        self.mark("{")?;
        let mut schedule = Schedule::default();
        let mut errors = Vec::new();
        loop {
            self.skip_lines();
            if self.take("}") {
                self.line_end()?;
                return Ok((schedule, errors));
            }
            if self.at_end() || self.at_item() {
                return Err(self.expected("`}` at the end of the schedule"));
            }
            let from = self.position();
            if let Err(error) = self.stage(&mut schedule) {
                errors.push(error);
                self.recover(from);
            }
        }
    }
    fn stage(&mut self, schedule: &mut Schedule) -> Result<(), Diagnostic> {
        const STAGES: [&str; 5] = ["prepare", "condition", "steps", "decode", "trace"];
        let place = self.place();
        let word = self.word()?;
        let twice = match word {
            "prepare" => schedule.prepare.replace(self.function()?).is_some(),
            "condition" => schedule.condition.replace(self.function()?).is_some(),
            "decode" => schedule.decode.replace(self.function()?).is_some(),
            "steps" => schedule.steps.replace(self.steps()?).is_some(),
            "trace" => !std::mem::replace(&mut schedule.trace, self.words()?).is_empty(),
            other => return Err(unknown("stage", other, STAGES).at(Some(place))),
        };
        if twice {
            return Err(Diagnostic::new("P2", format!("a second `{word}`")).at(Some(place)));
        }
        self.line_end()
    }
    /// `@step, @last carry(latent) table(t: f32[]) tabulate 8 @rows` after `steps`.
    fn steps(&mut self) -> Result<StepLoop, Diagnostic> {
        let mut steps = StepLoop::default();
        while matches!(self.peek(), crate::lex::Kind::Function(_)) {
            steps.functions.push(self.function()?);
            if !self.take(",") {
                break;
            }
        }
        if self.take_word("carry") {
            steps.carry = self.words()?;
        }
        if self.take_word("table") {
            self.mark("(")?;
            while !self.take(")") {
                let name = self.word_or_text()?;
                self.mark(":")?;
                let ty = self.tensor_type()?;
                steps.tables.push(TableDecl { name, ty });
                if !self.take(",") && !self.is(")") {
                    return Err(self.expected("`,` or `)`"));
                }
            }
        }
        if self.take_word("tabulate") {
            let rows = self.integer(0, u32::MAX.into())? as usize;
            steps.tabulate = Some(Tabulate { function: self.function()?, rows });
        }
        Ok(steps)
    }
    /// `(a, b)`
    fn words(&mut self) -> Result<Vec<String>, Diagnostic> {
        let mut words = Vec::new();
        self.mark("(")?;
        while !self.take(")") {
            words.push(self.word_or_text()?);
            if !self.take(",") && !self.is(")") {
                return Err(self.expected("`,` or `)`"));
            }
        }
        Ok(words)
    }
}
