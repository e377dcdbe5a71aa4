// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a file: where, why, and what to do about it.
//!
//! A [`Problem`] always names a file and a remedy, and a place in the file wherever there is
//! one. [`Diagnostics`] collects all that could be found in one go.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use serde::Serialize;

/// The language of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// TOML.
    Toml,
    /// Devicetree source.
    Dts,
}

/// A file that was read, for showing its lines.
#[derive(Clone, Debug)]
pub struct Source {
    named: Arc<NamedSource<String>>,
    dialect: Dialect,
}

impl Source {
    /// Remembers a file's text under the name by which the user knows it.
    pub fn new(path: &Path, text: impl Into<String>) -> Self {
        Self {
            named: Arc::new(NamedSource::new(path.display().to_string(), text.into())),
            dialect: Dialect::Toml,
        }
    }

    /// Says that the text is devicetree source.
    #[must_use]
    pub fn as_dts(self) -> Self {
        Self {
            dialect: Dialect::Dts,
            ..self
        }
    }

    /// Returns the file's language.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Chooses the words that fit the file's language.
    pub(crate) fn say<'a>(&self, toml: &'a str, dts: &'a str) -> &'a str {
        match self.dialect {
            Dialect::Toml => toml,
            Dialect::Dts => dts,
        }
    }

    /// Returns the file's name.
    pub fn name(&self) -> &str {
        self.named.name()
    }

    /// Returns the file's text.
    pub fn text(&self) -> &str {
        self.named.inner()
    }

    /// Returns line and column of a byte, both from 1.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text().get(..at).unwrap_or(self.text());
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        (line, column)
    }
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Cannot work.
    Error,
    /// Works, but will surprise.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How bad.
    pub level: Level,
    /// What is wrong, in one line.
    pub message: String,
    /// Said at the caret.
    pub label: String,
    /// What to do about it.
    pub remedy: String,
    /// The file.
    pub source: Source,
    /// The place in it, in bytes.
    pub span: Option<Range<usize>>,
}

impl Problem {
    /// Makes an error at a place.
    pub fn error(
        source: &Source,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Error,
            message: message.into(),
            label: label.into(),
            remedy: remedy.into(),
            source: source.clone(),
            span: Some(span),
        }
    }

    /// Turns it into a warning.
    #[must_use]
    pub fn warning(self) -> Self {
        Self {
            level: Level::Warning,
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.level {
            Level::Error => miette::Severity::Error,
            Level::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.remedy))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.span
            .as_ref()
            .map(|_| &*self.source.named as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(
            LabeledSpan::new_primary_with_span(Some(self.label.clone()), span),
        )))
    }
}

/// Everything that was found in one go.
#[derive(Clone, Default)]
pub struct Diagnostics {
    /// In the order of the file, errors and warnings.
    pub problems: Vec<Problem>,
}

impl From<Problem> for Diagnostics {
    fn from(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

/// A problem as a program reads it.
#[derive(Serialize)]
struct JsonProblem<'a> {
    level: Level,
    file: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    message: &'a str,
    label: &'a str,
    remedy: &'a str,
}

impl Diagnostics {
    /// Says whether something cannot work.
    pub fn has_errors(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.level == Level::Error)
    }

    /// Shows each problem with its line, a caret and the remedy.
    pub fn render(&self, colors: bool) -> String {
        let theme = if colors {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(100)
            .with_links(false);
        let mut text = String::new();
        for problem in &self.problems {
            if !text.is_empty() {
                text.push('\n');
            }
            let shown = handler.render_report(&mut text, problem);
            if shown.is_err() {
                text.push_str(&problem.message);
            }
            if problem.span.is_none() {
                text.push_str(&format!("  in {}\n", problem.source.name()));
            }
        }
        // The handler pads the last column of a line.
        text.lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
            + "\n"
    }

    /// Returns the problems as a JSON value.
    pub fn to_json(&self) -> serde_json::Value {
        let problems: Vec<_> = self
            .problems
            .iter()
            .map(|problem| {
                let position = problem
                    .span
                    .as_ref()
                    .map(|span| problem.source.position(span.start));
                JsonProblem {
                    level: problem.level,
                    file: problem.source.name(),
                    line: position.map(|(line, _)| line),
                    column: position.map(|(_, column)| column),
                    message: &problem.message,
                    label: &problem.label,
                    remedy: &problem.remedy,
                }
            })
            .collect();
        serde_json::json!(problems)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// As readable as `Display`: this is what an `unwrap` in a test or a `{:?}` in a tool shows.
impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Diagnostics {}
