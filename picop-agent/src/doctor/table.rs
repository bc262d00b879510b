//! The report for people.

use std::fmt::Write as _;

use super::{
    check::{Check, Verdict},
    report::Report,
};

/// Columns of the table.
const WIDTH: usize = 110;
/// Columns of the longest verdict.
const VERDICT: usize = 8;
/// Where checks begin. What is wrong, and what follows, stands there below its check.
const INDENT: usize = 2 + VERDICT + 2;
/// Lines of detail a check may take: a verifier's log has hundreds.
const DETAIL_LINES: usize = 5;

/// Lays the report out.
pub fn render(report: &Report, colours: bool) -> String {
    let mut out = String::new();
    let what = width("check", report.checks.iter().map(|check| check.what.len()));
    let features = width("for", report.checks.iter().map(|check| names(check).len()));
    let detail_at = INDENT + what + 2 + features + 2;
    line(&mut out, &format!("picop {}, Linux {}", report.version, report.kernel));
    line(&mut out, "");
    line(&mut out, &row("", "verdict", "check", what, "for", features, "what was seen"));
    for check in &report.checks {
        // Padded by hand: escape sequences have no width.
        let verdict = paint(check.verdict, colours) + &" ".repeat(VERDICT - check.verdict.as_str().len());
        let mark = if check.blocks() { "!" } else { "" };
        let names = names(check);
        let mut beside = wrap(&check.detail, WIDTH - detail_at);
        let mut below = Vec::new();
        if check.verdict != Verdict::Ok && beside.len() > 1 {
            // An error is easier to read in long lines.
            beside.clear();
            below = wrap(&check.detail, WIDTH - INDENT);
            if below.len() > DETAIL_LINES {
                below.truncate(DETAIL_LINES);
                below.push("... (all of it: picop doctor --json)".to_owned());
            }
        }
        let mut beside = beside.iter();
        let first = beside.next().map_or("", String::as_str);
        line(&mut out, &row(mark, &verdict, check.what, what, &names, features, first));
        for more in beside {
            line(&mut out, &format!("{:detail_at$}{more}", ""));
        }
        if let Some(consequence) = &check.consequence {
            below.extend(wrap(&format!("=> {consequence}"), WIDTH - INDENT));
        }
        for more in below {
            line(&mut out, &format!("{:INDENT$}{more}", ""));
        }
    }
    line(&mut out, "");
    summary(&mut out, report, colours);
    out
}

fn summary(out: &mut String, report: &Report, colours: bool) {
    let features: Vec<_> = report
        .features
        .iter()
        .map(|(feature, verdict)| format!("{} {}", feature.as_str(), paint(*verdict, colours)))
        .collect();
    line(out, &features.join(", "));
    if report.can_run {
        line(out, "The agent can run here.");
        return;
    }
    let of = |verdict| {
        let blocking = report.checks.iter().filter(move |check| check.blocks() && check.verdict == verdict);
        blocking.map(|check| check.what).collect::<Vec<_>>().join(", ")
    };
    // What could not be tried mostly follows from what is missing.
    let why =
        Some(of(Verdict::Missing)).filter(|list| !list.is_empty()).unwrap_or_else(|| of(Verdict::Unknown));
    let text = format!("The agent cannot run here. What it lacks first of all: {why}.");
    for text in wrap(&text, WIDTH) {
        line(out, &text);
    }
}

fn row(
    mark: &str,
    verdict: &str,
    what: &str,
    what_width: usize,
    names: &str,
    names_width: usize,
    detail: &str,
) -> String {
    format!("{mark:>1} {verdict:<VERDICT$}  {what:<what_width$}  {names:<names_width$}  {detail}")
}

fn width(header: &str, lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(header.len(), usize::max)
}

fn names(check: &Check) -> String {
    check.features.iter().map(|feature| feature.as_str()).collect::<Vec<_>>().join(", ")
}

fn paint(verdict: Verdict, colours: bool) -> String {
    let word = verdict.as_str();
    let colour = match verdict {
        Verdict::Ok => 32,
        Verdict::Degraded | Verdict::Unknown => 33,
        Verdict::Missing => 31,
    };
    if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{}", text.trim_end()).expect("writing to a string");
}

/// Breaks a text at blanks, and a word longer than a line anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut room = 0;
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for (i, piece) in letters.chunks(width).enumerate() {
            let piece_width = piece.len();
            match lines.last_mut() {
                Some(last) if i == 0 && piece_width < room => {
                    last.push(' ');
                    last.extend(piece);
                    room -= piece_width + 1;
                }
                _ => {
                    lines.push(piece.iter().collect());
                    room = width - piece_width;
                }
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests;
