//! What went wrong, as a person reads it: each thing once, and of an API server its own words. Pure.

use anyhow::Error;
use kube::core::Status;

use super::{
    command::Scope,
    table::{cut, plain},
};

/// Longest answer of something that is no API server, such as a proxy's page, in characters.
const LONGEST: usize = 300;

/// An error and what caused it, in one line.
pub(super) fn text(error: &Error, scope: &Scope) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            told.push(answer(status, scope));
            break;
        }
        // Many have the words of what caused them at the end of their own.
        let words = plain(&cause.to_string());
        if told.last().is_none_or(|before| !before.ends_with(&words)) {
            told.push(words);
        }
    }
    told.join(": ")
}

/// What an API server has answered.
fn answer(status: &Status, scope: &Scope) -> String {
    if is_no_such_api(status) {
        let apply = scope.everywhere("kubectl apply --server-side -f crds/");
        return format!("the CRDs are not installed: install the chart with crds.install, or {apply}");
    }
    let words = [&status.message, &status.reason].into_iter().map(|words| words.trim()).find(|words| !words.is_empty());
    let words = words.map(|words| cut(&plain(words), LONGEST));
    words.unwrap_or_else(|| format!("the API server answers {}", status.code))
}

/// Of an object that is missing it has the name; where it does not know the kind, it has none.
fn is_no_such_api(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_none_or(|details| details.name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;
    use serde_json::{Value, json};

    use super::*;

    fn told(answer: Value) -> String {
        let status: Status = serde_json::from_value(answer).unwrap();
        let error =
            Err::<(), _>(kube::Error::Api(status.boxed())).context("ingestpipeline.drover.dev/t in namespace n");
        text(&error.unwrap_err(), &Scope::default())
    }

    #[test]
    fn an_answer_of_the_api_server_is_told_once_and_without_what_programs_make_of_it() {
        let forbidden = "ingestpipelines.drover.dev \"t\" is forbidden: User \"u\" cannot get resource";
        for (code, reason, message) in [
            (403, "Forbidden", forbidden),
            (404, "NotFound", "ingestpipelines.drover.dev \"t\" not found"),
            (503, "ServiceUnavailable", "the server is currently unable to handle the request"),
        ] {
            let answer = json!({
                "status": "Failure", "code": code, "reason": reason, "message": message, "details": { "name": "t" },
            });
            assert_eq!(told(answer), format!("ingestpipeline.drover.dev/t in namespace n: {message}"));
        }
    }

    #[test]
    fn a_kind_that_the_api_server_does_not_know_is_told_as_what_is_not_installed() {
        for answer in [
            json!({ "code": 404, "reason": "Failed to parse error data", "message": "404 page not found" }),
            json!({ "code": 404, "reason": "NotFound", "message": "the server could not find it", "details": {} }),
        ] {
            let told = told(answer);
            assert!(told.contains("the CRDs are not installed") && told.contains("kubectl apply"), "{told}");
            assert!(!told.contains("404 page"), "{told}");
        }
    }

    #[test]
    fn an_answer_that_says_nothing_is_told_by_its_number_and_a_long_page_is_cut() {
        assert!(told(json!({ "code": 503 })).ends_with("the API server answers 503"));
        let page = told(json!({ "code": 503, "message": "<p>\n".repeat(500) }));
        assert!(page.chars().count() < 400 && !page.contains('\n'), "{page}");
    }

    #[test]
    fn a_cause_that_is_in_the_words_before_it_is_not_told_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("ServiceError: {0}")]
        struct Service(#[source] io::Error);

        let refused = Service(io::Error::other("connection refused"));
        let error = Error::from(refused).context("t in namespace n");
        assert_eq!(text(&error, &Scope::default()), "t in namespace n: ServiceError: connection refused");
    }
}
