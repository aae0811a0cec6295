//! Telling a person what takes so long: a spinner on a terminal, plain lines elsewhere, all on standard error.

use std::future::Future;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// A step that took longer than this is worth a line with its time.
const NOTEWORTHY: Duration = Duration::from_secs(1);

/// Runs one step and shows it while it lasts; afterwards its time stays on the screen if it took over a second.
pub(crate) async fn step<T, E>(what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let begun = Instant::now();
    let spinner = spinner(what);
    let outcome = work.await;
    spinner.finish_and_clear();
    finished(what, begun.elapsed(), outcome.is_ok());
    outcome
}

/// Leaves a line about a step that is over.
pub(crate) fn finished(what: &str, took: Duration, well: bool) {
    if took >= NOTEWORTHY || !well {
        let mark = if well { "✓" } else { "✗" };
        output::note(&format!("{mark} {what} ({:.1} s)", took.as_secs_f64()));
    }
}

/// A spinner with a text and the time; invisible when standard error is no terminal.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is constant");
    let bar = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar for a number of bytes; invisible when standard error is no terminal.
pub(crate) fn bytes_bar(what: &str, total: u64) -> ProgressBar {
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    let style = ProgressStyle::with_template(template).expect("the template is constant");
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}
