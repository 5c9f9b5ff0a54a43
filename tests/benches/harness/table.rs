//! The table at the end.

use std::{fmt, time::Duration};

use super::Paired;

/// What a multiple should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    scenario: String,
    ours: String,
    multiple: String,
    goal: String,
    original: &'static str,
    /// `None`: there is no goal.
    met: Option<bool>,
}

impl Row {
    /// A figure that is a multiple of something, named by `unit`.
    pub(crate) fn multiple(
        scenario: impl Into<String>,
        ours: String,
        paired: &Paired,
        unit: &str,
        goal: Goal,
        original: &'static str,
    ) -> Self {
        let (low, high) = paired.spread();
        let multiple = format!("{:.2} {unit} ({low:.2} to {high:.2})", paired.multiple());
        let met = Some(goal.is_met(paired.multiple()));
        Self { scenario: scenario.into(), ours, multiple, goal: written(goal, unit), original, met }
    }

    /// A time since an event, in seconds, beside the time that the servers themselves needed after it: shown as a
    /// multiple of that, and judged by how much later it is.
    pub(crate) fn later(scenario: impl Into<String>, ours: String, paired: &Paired, most: Duration) -> Self {
        let (low, high) = paired.spread();
        // Where the servers needed no time, there is nothing to be a multiple of.
        let is_multiple = high < 100.0;
        let multiple = format!("{:.2} times the servers' ({low:.2} to {high:.2})", paired.multiple());
        Self {
            scenario: scenario.into(),
            ours,
            multiple: if is_multiple { multiple } else { "-".into() },
            goal: format!("≤ {} s later", most.as_secs_f64()),
            original: "-",
            met: Some(paired.more() <= most.as_secs_f64()),
        }
    }

    /// A figure that is no multiple of anything.
    pub(crate) fn plain(
        scenario: impl Into<String>,
        ours: String,
        value: f64,
        unit: &str,
        goal: Goal,
        original: &'static str,
    ) -> Self {
        let met = Some(goal.is_met(value));
        Self { scenario: scenario.into(), ours, multiple: "-".into(), goal: written(goal, unit), original, met }
    }

    /// A figure that shows how another one grows, without a goal of its own.
    pub(crate) fn shown(scenario: impl Into<String>, ours: String, multiple: String) -> Self {
        Self { scenario: scenario.into(), ours, multiple, goal: "-".into(), original: "-", met: None }
    }

    fn cells(&self) -> [&str; 6] {
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "-",
        };
        [&self.scenario, &self.ours, &self.multiple, &self.goal, self.original, verdict]
    }
}

fn written(goal: Goal, unit: &str) -> String {
    match goal {
        Goal::AtLeast(value) => format!("≥ {value} {unit}"),
        Goal::AtMost(value) => format!("≤ {value} {unit}"),
    }
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

const HEAD: [&str; 6] = ["scenario", "ours", "multiple (lowest to highest)", "goal", "Go original", "verdict"];

impl Table {
    /// Adds lines, and shows them at once: a run takes minutes.
    pub(crate) fn extend(&mut self, rows: Vec<Row>) {
        for row in rows {
            let [scenario, ours, multiple, ..] = row.cells();
            eprintln!("  {scenario}: {ours}, {multiple}");
            self.rows.push(row);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<[&str; 6]> = self.rows.iter().map(Row::cells).collect();
        let mut widths = HEAD.map(|cell| cell.chars().count());
        for row in &cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |f: &mut fmt::Formatter<'_>, row: &[&str; 6]| {
            for (cell, width) in row.iter().zip(widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")
        };
        line(f, &HEAD)?;
        let rules = widths.map(|width| "-".repeat(width));
        line(f, &[&rules[0], &rules[1], &rules[2], &rules[3], &rules[4], &rules[5]])?;
        for row in &cells {
            line(f, row)?;
        }
        let judged: Vec<bool> = self.rows.iter().filter_map(|row| row.met).collect();
        write!(f, "\n{} of {} goals met", judged.iter().filter(|met| **met).count(), judged.len())
    }
}

/// A rate: `92.1 k/s`.
pub(crate) fn thousands(per_second: f64) -> String {
    format!("{:.1} k/s", per_second / 1e3)
}

/// A rate in memory: `12.3 M/s`.
pub(crate) fn millions(per_second: f64) -> String {
    format!("{:.1} M/s", per_second / 1e6)
}

/// A latency: `81 µs`.
pub(crate) fn micros(seconds: f64) -> String {
    format!("{:.0} µs", seconds * 1e6)
}
