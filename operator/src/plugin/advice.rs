//! What to do about a reason: the same words as on the page on conditions, which is read for it.

/// The page.
const PAGE: &str = include_str!("../../../docs/src/conditions.md");
/// Sections whose rows others point to.
const COMMON: &str = "HubReady";

/// What the page says of a condition's reason: what it means, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) means: String,
    pub(super) remedy: Option<String>,
}

/// The advice for a reason of a condition; that for the hub where its own row points there or is missing.
pub(super) fn advice(condition: &str, reason: &str) -> Option<Advice> {
    let own = row(condition, reason);
    match own {
        Some(advice) if !advice.means.contains("as for the hub") => Some(advice),
        Some(Advice { remedy, .. }) => {
            let common = row(COMMON, reason)?;
            Some(Advice { remedy: remedy.filter(|r| !r.contains("as for the hub")).or(common.remedy), ..common })
        }
        None => row(COMMON, reason),
    }
}

fn row(condition: &str, reason: &str) -> Option<Advice> {
    let heading = format!("## {condition}:");
    let section = PAGE.lines().skip_while(|line| !line.starts_with(&heading)).skip(1);
    section.take_while(|line| !line.starts_with("## ")).find_map(|line| {
        let mut cells = line.strip_prefix('|')?.strip_suffix('|')?.split(" | ").map(str::trim);
        let names = cells.next()?;
        names.split('`').any(|name| name == reason).then_some(())?;
        let means = plain(cells.next()?);
        let remedy = cells.next().map(plain).filter(|text| !text.is_empty());
        Some(Advice { means, remedy })
    })
}

/// Without the marks of Markdown: of a link the text.
fn plain(text: &str) -> String {
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
    plain.replace('`', "").trim().to_owned()
}

#[cfg(test)]
mod tests {
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
        assert!(super::advice("StoreReady", "InvalidUri").unwrap().remedy.unwrap().starts_with("postgres://"));
    }

    #[test]
    fn links_are_told_as_their_text() {
        assert_eq!(
            plain("run the `GRANT`; [what is needed](a.md#b) first [x"),
            "run the GRANT; what is needed first [x"
        );
    }

    #[test]
    fn of_an_unknown_reason_nothing_is_told() {
        assert_eq!(advice("HubReady", "Moon"), None);
    }
}
