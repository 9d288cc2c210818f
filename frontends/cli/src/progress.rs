//! Progress on stderr, on a terminal only: one bar for each stage, with the time left.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use selvedge::Event;
use std::cell::RefCell;
use std::io::IsTerminal;

/// The bar of the stage that is running.
#[derive(Default)]
pub struct Bars {
    current: RefCell<Option<(&'static str, ProgressBar)>>,
}

impl Bars {
    /// Shows an event.
    pub fn event(&self, event: &Event) {
        match *event {
            Event::Peak(_) => {}
            Event::Note(ref note) => self.note(note),
            Event::Upload { done, total } => self.set("weights", done, total),
            Event::Pipelines { done, total } => self.set("pipelines", done, total),
            Event::WarmUp { done, total } => self.set("warm-up", done, total),
            Event::Tune { done, total } => self.set("tuning", done, total),
            Event::Steps { done, total } => self.set("steps", done, total),
        }
    }

    /// A line that stays, above the bars.
    fn note(&self, note: &str) {
        let current = self.current.borrow();
        let say = || eprintln!("note: {note}");
        match current.as_ref() {
            Some((_, bar)) => bar.suspend(say),
            None => say(),
        }
    }

    fn set(&self, what: &'static str, done: u64, total: u64) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_none_or(|(name, _)| *name != what) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            *current = Some((what, bar(what, total)));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some((_, bar)) = self.current.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let terminal = std::io::stderr().is_terminal();
    let target = if terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let counts = if what == "weights" { "{bytes}/{total_bytes}" } else { "{pos}/{len}" };
    let template = format!("{{msg:>9}} [{{bar:32}}] {counts} {{elapsed}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is valid").progress_chars("=> ");
    bar.set_style(style);
    bar.set_message(what);
    bar
}
