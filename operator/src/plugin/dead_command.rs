//! `kubectl drover dead`: from the command line to letters and back to text.

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;

use super::{
    args::{Cluster, Dead, Extent, Output, Page, Queue},
    cluster::{self, Meant},
    confirm,
    dead::{self, DeadError, Destination, Letter, Look, Pace, Report, Selection},
    progress::Progress,
    reader,
    table::{cut, plain, span, table},
    told::Owner,
};

/// Longest error in a table, in characters.
const ERROR_WIDTH: usize = 60;

pub(super) async fn run(cluster: &Cluster, command: Dead, now: Timestamp) -> Result<()> {
    match command {
        Dead::List { queue, filter, page, limit } => {
            let (seen, output) = look(cluster, &queue, &filter.selection(), &page, limit, now).await?;
            reader::print(&list(&seen, output, now)?)?;
            if matches!(output, Output::Table | Output::Wide) {
                reader::note(&summary(&seen));
            }
            Ok(())
        }
        Dead::Show { queue, filter, page, limit } => {
            let (seen, output) = look(cluster, &queue, &filter.selection(), &page, limit, now).await?;
            reader::print(&show(&seen, output)?)?;
            if seen.letters.is_empty() {
                reader::note(&summary(&seen));
            }
            Ok(())
        }
        Dead::Redrive { queue, filter, extent, rate, to } => {
            let Meant { letters, back, owner } = cluster::dead_letters(cluster, &queue).await?;
            let destination = to.map(Destination::Queue).or(back);
            let destination = destination.context(
                "the dead letters of a query have no way back, as its streams are read in order: name a queue with --to",
            )?;
            let pace = Pace { most: extent.max, rate, held: None, dry_run: extent.dry_run };
            let mut progress = Progress::new();
            let told = |report: &Report| progress.show(report);
            let ended = dead::redrive(&letters, &destination, &filter.selection(), &pace, now, told).await;
            finish(ended, progress, &pace, owner.as_ref(), ("redriven", "Redriven", "Redrive")).await
        }
        Dead::Purge { queue, filter, extent, yes } => {
            let meant = cluster::dead_letters(cluster, &queue).await?;
            purge(&meant, &filter.selection(), &extent, yes, now).await
        }
    }
}

async fn look(
    cluster: &Cluster,
    queue: &Queue,
    selection: &Selection,
    page: &Page,
    limit: usize,
    now: Timestamp,
) -> Result<(Look, Output)> {
    let Meant { letters, .. } = cluster::dead_letters(cluster, queue).await?;
    let seen = dead::look(&letters, selection, (page.skip, limit), page.scan, now).await?;
    Ok((seen, page.output))
}

async fn purge(meant: &Meant, selection: &Selection, extent: &Extent, yes: bool, now: Timestamp) -> Result<()> {
    let letters = &meant.letters;
    let mut pace = Pace { most: extent.max, dry_run: extent.dry_run, ..Pace::default() };
    if !pace.dry_run && !yes {
        let counted = dead::purge(letters, selection, &Pace { dry_run: true, ..pace }, now, |_| ()).await?;
        let question =
            format!("delete {} of {} dead letters of {} for good?", counted.matched, counted.depth, letters.queue);
        if counted.matched == 0 || !confirm::ask(&question)? {
            return reader::print("nothing is deleted\n").map(drop);
        }
        // What came meanwhile was not agreed to.
        pace.most = Some(counted.matched);
    }
    let mut progress = Progress::new();
    let ended = dead::purge(letters, selection, &pace, now, |report| progress.show(report)).await;
    finish(ended, progress, &pace, meant.owner.as_ref(), ("deleted", "Purged", "Purge")).await
}

/// Says what was done, to who has asked and by an Event to others; also where an error has ended it early.
async fn finish(
    ended: Result<Report, DeadError>,
    progress: Progress,
    pace: &Pace,
    owner: Option<&Owner>,
    (done, reason, action): (&str, &str, &'static str),
) -> Result<()> {
    let report = ended.as_ref().copied().unwrap_or(progress.last());
    drop(progress);
    let told = outcome(&report, pace, done);
    if let Some(owner) = owner
        && !pace.dry_run
        && report.done > 0
    {
        owner.tell(reason, action, &told).await;
    }
    ended?;
    reader::print(&format!("{told}\n")).map(drop)
}

fn outcome(report: &Report, pace: &Pace, done: &str) -> String {
    let Report { depth, looked, matched, done: number } = report;
    if pace.dry_run {
        format!("{matched} would be {done}: looked at {looked} of {depth} (dry run)")
    } else {
        format!("{number} {done}: looked at {looked} of {depth}, {} left", depth - number)
    }
}

fn summary(seen: &Look) -> String {
    let reasons: Vec<String> = seen.reasons.iter().map(|(reason, n)| format!("{n} {}", plain(reason))).collect();
    let matched: u64 = seen.reasons.values().sum();
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    format!("{} shown, {matched} match{reasons}; looked at {} of {}", seen.letters.len(), seen.looked, seen.depth)
}

fn list(seen: &Look, output: Output, now: Timestamp) -> Result<String> {
    match output {
        Output::Json | Output::Yaml => structured(&seen.letters, output),
        Output::Table | Output::Wide if seen.letters.is_empty() => Ok(String::new()),
        Output::Table => Ok(table(&rows(&seen.letters, false, now))),
        Output::Wide => Ok(table(&rows(&seen.letters, true, now))),
    }
}

fn rows(letters: &[Letter], wide: bool, now: Timestamp) -> Vec<Vec<String>> {
    let mut header = vec!["#", "AGE", "REASON", "STAGE", "ID", "BYTES"];
    if wide {
        header.extend(["ATTEMPTS", "REVISION", "EXCHANGE", "ROUTING KEY"]);
    }
    header.push("ERROR");
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), plain);
    let row = |letter: &Letter| {
        let age = letter.last_failure.map_or_else(
            || "-".to_owned(),
            |then| span(std::time::Duration::try_from(now.duration_since(then)).unwrap_or_default()),
        );
        let mut row = vec![
            letter.position.to_string(),
            age,
            plain(&letter.reason),
            text(&letter.stage),
            text(&letter.id),
            letter.bytes.to_string(),
        ];
        if wide {
            row.extend([&letter.attempts, &letter.revision, &letter.exchange, &letter.routing_key].map(text));
        }
        let error = text(&letter.error);
        row.push(if wide { error } else { cut(&error, ERROR_WIDTH) });
        row
    };
    std::iter::once(header.into_iter().map(str::to_owned).collect()).chain(letters.iter().map(row)).collect()
}

fn show(seen: &Look, output: Output) -> Result<String> {
    match output {
        Output::Json | Output::Yaml => structured(&seen.letters, output),
        Output::Table | Output::Wide => Ok(seen.letters.iter().map(whole).collect::<Vec<_>>().join("\n")),
    }
}

fn whole(letter: &Letter) -> String {
    let mut rows = vec![vec!["Letter:".to_owned(), letter.position.to_string()]];
    for (name, value) in [("Id:", &letter.id), ("Stage:", &letter.stage), ("Error:", &letter.error)] {
        rows.extend(value.iter().map(|v| vec![name.to_owned(), plain(v)]));
    }
    rows.insert(1, vec!["Reason:".to_owned(), plain(&letter.reason)]);
    rows.extend(letter.last_failure.map(|at| vec!["Failed:".to_owned(), at.to_string()]));
    let headers: Vec<_> = letter.headers.iter().map(|(n, v)| vec![format!("  {}:", plain(n)), plain(v)]).collect();
    let body = match (&letter.body, &letter.body_base64) {
        (Some(body), _) => body.lines().map(plain).collect::<Vec<_>>().join("\n"),
        (None, _) => format!("({} bytes that are no text: see -o json)", letter.bytes),
    };
    format!("{}Headers:\n{}Body:\n{body}\n", table(&rows), table(&headers))
}

fn structured(letters: &[Letter], output: Output) -> Result<String> {
    if output == Output::Yaml {
        return serde_saphyr::to_string(&letters).context("letters as YAML");
    }
    Ok(serde_json::to_string_pretty(&letters).context("letters as JSON")? + "\n")
}

#[cfg(test)]
mod tests;
