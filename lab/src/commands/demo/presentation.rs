//! The output of the demo: progress of its steps, and texts. Both are kept for the recording.

use super::recording::Recording;
use anyhow::{Context, Result};
use ferrolb_lab::steps::{Steps, format_duration};
use ferrolb_lab::wait;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Prints the demo, and keeps the printed lines with their times.
pub(crate) struct Presentation {
    steps: Steps,
    recording: Recording,
}

impl Presentation {
    /// Continues after `steps`, whose output is not recorded.
    pub(crate) fn new(steps: Steps) -> Self {
        Self { steps, recording: Recording::new(wait::now()) }
    }

    /// Runs a step of the demo, see [`Steps::step`].
    ///
    /// # Errors
    /// If `work` fails.
    pub(crate) fn step<T: Send>(
        &mut self,
        title: &str,
        usual: Duration,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let start = wait::now();
        let result = self.steps.step(title, usual, work)?;
        let end = wait::now();
        self.recording.add(end, &format!("== {title}: {}", format_duration(end - start)));
        Ok(result)
    }

    /// Prints a text.
    pub(crate) fn show(&mut self, text: &str) {
        println!("{text}");
        // An empty line separates the text from the next step.
        self.recording.add(wait::now(), &format!("{}\n ", text.trim_end()));
    }

    /// Writes the recording as an SVG.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        fs::write(file, self.recording.svg())
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("The recording is in {}.", file.display());
        Ok(())
    }
}
