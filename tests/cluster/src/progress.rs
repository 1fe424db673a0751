//! What a person sees while something takes time: a line a step, and on a terminal a bar for the
//! running one. All of it on standard error.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, a long step says this often that it still runs.
const REMINDER: Duration = Duration::from_secs(30);

/// Shows steps, each with the time since the beginning.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    surface: Surface,
}

/// Where the steps are shown.
#[derive(Clone, Copy, Debug)]
enum Surface {
    Terminal,
    Lines,
}

impl Progress {
    /// For this process's standard error.
    pub fn new() -> Self {
        let surface = if stderr().is_terminal() { Surface::Terminal } else { Surface::Lines };
        Self { started: Instant::now(), surface }
    }

    /// Begins a step that takes seconds.
    pub fn step(&self, what: &str) -> Step<'_> {
        let bar = match self.surface {
            Surface::Terminal => {
                let bar = ProgressBar::new_spinner();
                bar.set_style(style("{spinner} {elapsed:>4}  {prefix}  {wide_msg:.dim}"));
                bar.set_prefix(what.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            }
            Surface::Lines => ProgressBar::hidden(),
        };
        Step::new(self, what, bar)
    }

    /// Begins a step that takes about `expected` when nothing of it is cached.
    pub fn long_step(&self, what: &str, expected: Duration) -> Step<'_> {
        let what = format!("{what} (about {} when cold)", spoken(expected));
        let bar = match self.surface {
            Surface::Terminal => {
                let bar = ProgressBar::new(expected.as_secs());
                bar.set_style(style("{bar:20} {elapsed:>4}  {prefix}  {wide_msg:.dim}"));
                bar.set_prefix(what.clone());
                bar
            }
            Surface::Lines => {
                eprintln!("{}  {what} …", self.clock());
                ProgressBar::hidden()
            }
        };
        Step::new(self, &what, bar)
    }

    /// Says something between steps.
    pub fn say(&self, what: &str) {
        eprintln!("{}  {what}", self.clock());
    }

    fn clock(&self) -> String {
        format!("{:7.1} s", self.started.elapsed().as_secs_f32())
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A step that is running.
#[derive(Debug)]
pub struct Step<'a> {
    progress: &'a Progress,
    what: String,
    started: Instant,
    bar: ProgressBar,
    reminded: Cell<Instant>,
    detail: RefCell<String>,
}

impl<'a> Step<'a> {
    fn new(progress: &'a Progress, what: &str, bar: ProgressBar) -> Self {
        let now = Instant::now();
        let detail = RefCell::default();
        Self { progress, what: what.to_owned(), started: now, bar, reminded: Cell::new(now), detail }
    }

    /// Says what the step is doing at this moment; called often.
    pub fn at(&self, detail: &str) {
        match self.progress.surface {
            Surface::Terminal => {
                self.bar.set_position(self.started.elapsed().as_secs());
                if *self.detail.borrow() != detail {
                    self.bar.set_message(detail.to_owned());
                    self.detail.replace(detail.to_owned());
                }
            }
            Surface::Lines if self.reminded.get().elapsed() > REMINDER => {
                self.reminded.set(Instant::now());
                let running = spoken(self.started.elapsed());
                eprintln!("{}  {}: running for {running}: {detail}", self.progress.clock(), self.what);
            }
            Surface::Lines => {}
        }
    }

    /// Ends the step: it has succeeded.
    pub fn done(self) {
        self.bar.finish_and_clear();
        eprintln!("{}  {}", self.progress.clock(), self.what);
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The template is constant; one that does not parse falls back to indicatif's own.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn spoken(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds < 90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}
