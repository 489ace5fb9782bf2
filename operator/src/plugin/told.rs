//! What a person has done with dead letters, as an Event of the object that they are of: the operator does not see it done.

use anyhow::Result;
use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::ObjectReference};
use kube::{Api, Client, api::PostParams};
use kube_runtime::events::{Recorder, Reporter};

use super::{command::Scope, fault, reader};
use crate::pipeline::plan::Notice;

/// The object, and the rights of who has called.
pub(super) struct Owner {
    pub(super) client: Client,
    pub(super) object: ObjectReference,
}

impl Owner {
    /// Tells of it. It is done all the same where that fails.
    pub(super) async fn tell(&self, reason: &str, action: &'static str, what: &str) {
        let note = format!("{what} (kubectl drover dead {}, by {})", action.to_lowercase(), self.user().await);
        let notice = Notice { warning: false, reason: reason.to_owned(), action, note };
        let reporter = Reporter { controller: "drover.dev/kubectl".to_owned(), instance: None };
        if let Err(error) = Recorder::new(self.client.clone(), reporter).publish(&(&notice).into(), &self.object).await
        {
            let why = fault::text(&error.into(), &Scope::default());
            reader::note(&format!(
                "no Event tells others of it, which needs the right to create events.events.k8s.io: {why}"
            ));
        }
    }

    async fn user(&self) -> String {
        self.asked().await.unwrap_or_else(|_| "somebody whose name the API server does not tell".to_owned())
    }

    async fn asked(&self) -> Result<String> {
        let answer =
            Api::all(self.client.clone()).create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        let name = answer.status.and_then(|status| status.user_info).and_then(|user| user.username);
        name.filter(|name| !name.is_empty()).ok_or_else(|| anyhow::anyhow!("no name"))
    }
}
