//! What to do about a reason: the same words as on the page on conditions, which is read for it.

/// The page.
const PAGE: &str = include_str!("../../../docs/src/conditions.md");
/// Sections whose rows others point to.
const COMMON: &str = "HubReady";

/// What the page says of a condition's reason: what it means, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) means: String,
    /// What is code in it is between backticks.
    remedy: Option<String>,
}

impl Advice {
    /// What to do, each command of kubectl as it is to be written for the object.
    pub(super) fn remedy(&self, command: impl Fn(&str) -> String) -> Option<String> {
        let whole = |(n, part): (usize, &str)| {
            // Every second part was between backticks.
            if n % 2 == 1 && part.starts_with("kubectl ") { command(part) } else { part.to_owned() }
        };
        Some(self.remedy.as_ref()?.split('`').enumerate().map(whole).collect())
    }
}

/// The advice for a reason of a condition: its own, else that for the hub, else whatever the page has under that name.
pub(super) fn advice(condition: &str, reason: &str) -> Option<Advice> {
    let own = row(section(condition), reason);
    match own {
        Some(advice) if !advice.means.contains("as for the hub") => Some(advice),
        Some(Advice { remedy, .. }) => {
            let common = row(section(COMMON), reason)?;
            Some(Advice { remedy: remedy.filter(|r| !r.contains("as for the hub")).or(common.remedy), ..common })
        }
        None => row(section(COMMON), reason).or_else(|| row(PAGE.lines(), reason)),
    }
}

/// The lines on a condition.
fn section(condition: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!("## {condition}:");
    let section = PAGE.lines().skip_while(move |line| !line.starts_with(&heading)).skip(1);
    section.take_while(|line| !line.starts_with("## "))
}

fn row(mut lines: impl Iterator<Item = &'static str>, reason: &str) -> Option<Advice> {
    lines.find_map(|line| {
        let mut cells = line.strip_prefix('|')?.strip_suffix('|')?.split(" | ").map(str::trim);
        let names = cells.next()?;
        names.split('`').any(|name| name == reason).then_some(())?;
        let means = plain(cells.next()?);
        let remedy = cells.next().map(unlinked).filter(|text| !text.is_empty());
        Some(Advice { means, remedy })
    })
}

/// Without the marks of Markdown.
fn plain(text: &str) -> String {
    unlinked(text).replace('`', "")
}

/// Of a link the text.
fn unlinked(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let parts = link.split_once("](").and_then(|(text, target)| Some((text, target.split_once(')')?.1)));
        let (text, after) = parts.unwrap_or(("[", link));
        plain.push_str(text);
        rest = after;
    }
    plain.push_str(rest);
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn a_reason_has_what_it_means_and_what_to_do() {
        let advice = advice("HubReady", "AccessRefused").unwrap();
        assert_eq!(advice.means, "wrong user or password");
        assert_eq!(advice.remedy.as_deref(), Some("correct the secret"));
    }

    #[test]
    fn a_row_that_points_to_the_hub_is_followed() {
        let advice = advice("StoreReady", "CertificateExpired").unwrap();
        assert_eq!((advice.means.as_str(), advice.remedy.as_deref()), ("it is no longer valid", Some("renew it")));
        assert!(super::advice("StoreReady", "InvalidUri").unwrap().remedy.unwrap().starts_with("`postgres://"));
    }

    #[test]
    fn links_are_told_as_their_text() {
        assert_eq!(
            plain("run the `GRANT`; [what is needed](a.md#b) first [x"),
            "run the GRANT; what is needed first [x"
        );
    }

    #[test]
    fn commands_are_told_as_they_are_written_for_the_object_and_without_marks() {
        let told = advice("Progressing", "AwaitingPromotion").unwrap().remedy(|command| format!("{command}!"));
        assert_eq!(told.as_deref(), Some("kubectl drover promote NAME!, or kubectl drover abort NAME!"));
        let told = advice("HubReady", "InvalidUri").unwrap().remedy(str::to_owned).unwrap();
        assert!(told.starts_with("amqp[s]://") && !told.contains('`'), "{told}");
    }

    #[test]
    fn every_command_of_kubectl_in_an_advice_can_be_completed() {
        let cells = PAGE.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')?.split(" | ").nth(2));
        let commands: Vec<&str> =
            cells.flat_map(|cell| cell.split('`')).filter(|s| s.starts_with("kubectl ")).collect();
        assert!(commands.len() > 3, "the page is read in vain: {commands:?}");
        let known = |command: &&&str| command.contains("NAME") || command.starts_with("kubectl logs");
        let unknown: Vec<_> = commands.iter().filter(|command| !known(command)).collect();
        assert!(unknown.is_empty(), "nobody knows of which object: {unknown:?}");
    }

    /// Conditions that are False where something is wrong.
    const CONDITIONS: [&str; 5] = ["Accepted", "HubReady", "StoreReady", "DeadLetterSafe", "WorkersReady"];

    /// The sources of a directory and those below it, as far as they give reasons of conditions.
    fn sources(directory: &Path) -> String {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let text = entries
            .filter(|path| !path.ends_with("tests") && !path.ends_with("plugin"))
            .map(|path| if path.is_dir() { sources(&path) } else { shipped(&fs::read_to_string(&path).unwrap()) });
        text.collect()
    }

    /// A source without its tests.
    fn shipped(source: &str) -> String {
        source.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
    }

    fn is_reason(word: &str) -> bool {
        let camel = word.chars().next().is_some_and(char::is_uppercase) && word.chars().all(char::is_alphanumeric);
        camel && word.len() > 3
    }

    /// Reasons of what is wrong outside or in a spec.
    fn of_problems(source: &str) -> impl Iterator<Item = &str> {
        let calls = source.split("Problem::new(").skip(1);
        calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next()).filter(|word| is_reason(word))
    }

    /// Reasons that errors of hub and store are told as.
    fn of_errors(source: &str) -> impl Iterator<Item = &str> {
        let lines = source.lines().filter(|line| line.trim_start().starts_with("Self::"));
        lines.filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).filter(|word| is_reason(word))
    }

    /// All words in `CamelCase` in a source.
    fn words(source: &str) -> impl Iterator<Item = &str> {
        source.split('"').skip(1).step_by(2).filter(|word| is_reason(word))
    }

    #[test]
    fn every_reason_that_something_is_wrong_for_has_an_advice() {
        let operator = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let worker = operator.join("../../worker/src");
        let operator = sources(&operator);
        let mut reasons: BTreeSet<&str> = of_problems(&operator).collect();
        let errors = ["hub.rs", "store.rs", "store/table.rs", "ingest/publisher.rs"];
        let errors: String =
            errors.iter().map(|file| shipped(&fs::read_to_string(worker.join(file)).unwrap())).collect();
        reasons.extend(of_errors(&errors));
        assert!(reasons.len() > 40, "the sources are read in vain: {reasons:?}");
        let advised = |reason: &&&str| CONDITIONS.iter().any(|c| advice(c, reason).is_some_and(|a| a.remedy.is_some()));
        let without: Vec<_> = reasons.iter().filter(|reason| !advised(reason)).collect();
        assert!(without.is_empty(), "on docs/src/conditions.md nobody is told what to do: {without:?}");
    }

    #[test]
    fn every_reason_in_a_report_is_on_the_page() {
        let operator = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let reports = ["pipeline/report.rs", "windows/report.rs"]
            .map(|f| shipped(&fs::read_to_string(operator.join(f)).unwrap()));
        let unknown: BTreeSet<&str> =
            reports.iter().flat_map(|report| words(report)).filter(|word| !PAGE.contains(word)).collect();
        // What Events say was done is no reason.
        let unknown: Vec<_> =
            unknown.iter().filter(|word| !["Observe", "Promote", "Recommend"].contains(word)).collect();
        assert!(unknown.is_empty(), "not on docs/src/conditions.md: {unknown:?}");
    }

    #[test]
    fn of_an_unknown_reason_nothing_is_told() {
        assert_eq!(advice("HubReady", "Moon"), None);
    }
}
