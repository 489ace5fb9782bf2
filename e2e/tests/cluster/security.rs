//! Least privilege, and no secret told. That no password is told, every trial checks when it ends.

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, Phase};
use drover_e2e::operator::{self, NAMESPACE};
use drover_e2e::pipeline::{FLOW, NAME, READY, SEEN, condition, manifest, messages};
use drover_e2e::surroundings::surroundings;
use drover_e2e::trial::{Trial, lone_trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

#[tokio::test]
async fn workers_are_restricted_and_have_no_token() -> Result<()> {
    trial("restricted", async |t| {
        t.telemetry().await?;
        let pods = t.workers(NAME).await?;
        let spec = pods.first().and_then(|pod| pod.spec.clone()).context("no worker")?;
        ensure!(spec.automount_service_account_token == Some(false), "its token is mounted");
        ensure!(spec.service_account_name.as_deref() == Some(NAME), "{:?}", spec.service_account_name);
        let volumes = spec.volumes.clone().unwrap_or_default();
        ensure!(volumes.iter().all(|v| v.projected.is_none() && v.host_path.is_none()), "{volumes:?}");
        let context = spec.security_context.clone().unwrap_or_default();
        ensure!(context.run_as_non_root == Some(true), "it may run as root");
        for container in &spec.containers {
            let context = container.security_context.clone().unwrap_or_default();
            let dropped = context.capabilities.and_then(|c| c.drop).unwrap_or_default();
            ensure!(dropped == ["ALL"], "{} keeps capabilities", container.name);
            ensure!(context.allow_privilege_escalation == Some(false), "{} may gain privileges", container.name);
            ensure!(context.read_only_root_filesystem == Some(true), "{} may write to its own root", container.name);
            let env = container.env.clone().unwrap_or_default();
            ensure!(
                !env.iter().any(|e| e.value.as_deref().is_some_and(|v| v.contains(&t.canary))),
                "a password is in its spec"
            );
        }
        let account = t.api::<ServiceAccount>().get(NAME).await?;
        ensure!(account.automount_service_account_token == Some(false), "its service account gives tokens to pods");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn workers_may_connect_to_hub_and_store_and_be_evicted_one_at_a_time() -> Result<()> {
    trial("limits", async |t| {
        t.telemetry().await?;
        let policy = t.api::<NetworkPolicy>().get(NAME).await?.spec.context("no spec")?;
        let rules = policy.egress.unwrap_or_default();
        let ports: Vec<String> = rules
            .iter()
            .flat_map(|rule| rule.ports.iter().flatten())
            .filter_map(|port| serde_json::to_string(&port.port).ok())
            .collect();
        for port in [t.hub.uri.port().unwrap_or(5671), t.store.uri.port().unwrap_or(5432), 53] {
            ensure!(ports.contains(&port.to_string()), "port {port} is not let out: {ports:?}");
        }
        ensure!(rules.iter().all(|rule| rule.ports.is_some()), "everything is let out");
        ensure!(
            policy.policy_types == Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            "{:?}",
            policy.policy_types
        );
        let budget = t.api::<PodDisruptionBudget>().get(NAME).await?.spec.context("no spec")?;
        ensure!(
            budget.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow"),
            "unhealthy pods cannot be evicted"
        );
        ensure!(serde_json::to_string(&budget.max_unavailable)? == "1", "{:?}", budget.max_unavailable);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_operator_may_not_list_secrets() -> Result<()> {
    trial("rights", async |t| {
        let pod = operator::pod(&t.client).await?;
        let account = pod.spec.and_then(|spec| spec.service_account_name).context("no service account")?;
        let operator = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        let refused = [
            ["list", "secrets"],
            ["watch", "secrets"],
            ["create", "secrets"],
            ["update", "secrets"],
            ["delete", "secrets"],
            ["create", "pods"],
            ["create", "pods/exec"],
            ["create", "clusterroles"],
            ["create", "rolebindings"],
            ["delete", "namespaces"],
            ["delete", "ingestpipelines"],
            ["impersonate", "users"],
        ];
        for [verb, resource] in refused {
            let answer = t.attempt_kubectl(&["auth", "can-i", verb, resource, &operator]).await?;
            ensure!(answer.out.trim() == "no", "it may {verb} {resource}: {}{}", answer.out, answer.err);
        }
        let token = ["auth", "can-i", "create", "serviceaccounts", "--subresource=token", &operator];
        let answer = t.attempt_kubectl(&token).await?;
        ensure!(answer.out.trim() == "no", "it may make tokens: {}{}", answer.out, answer.err);
        for [verb, resource] in [["get", "secrets"], ["patch", "deployments.apps"]] {
            let answer = t.attempt_kubectl(&["auth", "can-i", verb, resource, &operator]).await?;
            ensure!(answer.out.trim() == "yes", "it may not {verb} {resource}: {}{}", answer.out, answer.err);
        }
        Ok(())
    })
    .await
}

/// A server that takes no results, and is shown a token with each.
async fn refused_by_a_server(t: &Trial) -> Result<()> {
    let ca = &surroundings()?.ca;
    t.secret_with("server", &[("token", &format!("token-{}", t.canary)), ("ca.crt", ca)]).await?;
    let mut url = surroundings()?.management.clone();
    ensure!(url.set_username("").is_ok() && url.set_password(None).is_ok(), "it takes no user");
    let mut manifest = manifest("e");
    manifest["spec"]["source"]["bindings"] = json!([]);
    manifest["spec"]["sink"] = json!({ "http": { "url": url.as_str(), "secretRef": { "name": "server" } } });
    t.apply::<IngestPipeline>(&manifest).await?;
    t.ready("e").await?;
    t.hub.publish("", "e", &messages(0..1)).await?;
    until(FLOW, async || {
        let dead = t.hub.look("e.dead").await?;
        ensure!(dead.len() == 1 && !dead[0].headline().contains(&t.canary), "not refused, or a token is in a header");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn passwords_that_are_refused_are_told_nowhere() -> Result<()> {
    trial("canary", async |t| {
        // Wherever an address is shown in an error, its password must not be: two that are refused, and two that cannot be read.
        let mut hub = t.hub.uri.clone();
        let mut store = t.store.uri.clone();
        let wrong = format!("wrong-{}", t.canary);
        ensure!(hub.set_password(Some(&wrong)).is_ok() && store.set_password(Some(&wrong)).is_ok(), "no password");
        t.secret("hub-refused", hub.as_str()).await?;
        t.secret("store-refused", store.as_str()).await?;
        t.secret("hub-broken", &format!("amqps://user:{}@[/x", t.canary)).await?;
        t.secret("store-broken", &format!("postgres://user:{}@host:port/x", t.canary)).await?;
        let cases = [
            ("a", "hub-refused", "warehouse", "HubReady", "AccessRefused"),
            ("b", "hub", "store-refused", "StoreReady", "AuthenticationFailed"),
            ("c", "hub-broken", "warehouse", "HubReady", "InvalidUri"),
            ("d", "hub", "store-broken", "StoreReady", "InvalidUri"),
        ];
        for (name, hub, store, ..) in cases {
            t.table(name).await?;
            let mut manifest = manifest(name);
            manifest["spec"]["hub"]["secretRef"]["name"] = hub.into();
            manifest["spec"]["sink"]["postgres"]["secretRef"]["name"] = store.into();
            t.apply::<IngestPipeline>(&manifest).await?;
        }
        for (name, _, _, condition, reason) in cases {
            t.stands(name, SEEN, condition, "False", Some(reason)).await?;
        }
        refused_by_a_server(t).await?;
        // And one that works, with messages that are refused.
        t.telemetry().await?;
        t.hub.publish("amq.topic", "devices.1", &["{"]).await?;
        until(FLOW, async || {
            ensure!(t.dead_letters().await?.len() == 1, "not yet dead-lettered");
            Ok(())
        })
        .await?;
        for letter in t.dead_letters().await? {
            ensure!(!letter.headline().contains(&t.canary), "a password is in a header");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_told_is_found_wherever_it_is_told() -> Result<()> {
    trial("told", async |t| {
        t.telemetry().await?;
        let is_found = async |word: &str, place: &str| {
            let found = t.are_told_nowhere(&[word]).await.err().with_context(|| format!("{word} is not found"))?;
            ensure!(found.to_string().contains(place), "{word} is not found in {place}: {found}");
            anyhow::Ok(())
        };
        for (word, place) in [
            ("drover_worker_holding", "/metrics of telemetry-"),
            ("\"inFlight\"", "/status of telemetry-"),
            ("drover_worker::ingest", "the log of telemetry-"),
            ("Next: nothing to do", "kubectl drover status ipl/telemetry"),
            ("nothing is wrong", "kubectl drover why ipl/telemetry"),
            ("drover_operator_leader", "/metrics of the operator"),
            ("drover::audit", "the operator's log"),
        ] {
            is_found(word, place).await?;
        }
        t.apply::<Lease>(&json!({ "metadata": { "name": NAME } })).await?;
        for kind in [
            "IngestPipeline",
            "ConfigMap",
            "Event",
            "Deployment",
            "Pod",
            "ServiceAccount",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "ReplicaSet",
            "Lease",
        ] {
            let word = format!("told-to-a-{kind}");
            t.kubectl(&["annotate", kind, "--all", &format!("{word}=x")]).await?;
            is_found(&word, kind).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_host_that_is_no_longer_allowed_has_no_worker_and_loses_nothing() -> Result<()> {
    lone_trial("hosts", async |t| {
        t.telemetry().await?;
        operator::install_chart_with(&t.client, &["allowedHosts={nowhere.example,*.nowhere.example}"]).await?;
        let refused = async {
            let pipeline = t.stands(NAME, SEEN, "Accepted", "False", Some("HostNotAllowed")).await?;
            let told = condition(&pipeline, "Accepted").map(|c| c.message.clone()).unwrap_or_default();
            let host = t.hub.uri.host_str().context("no host")?.trim_matches(['[', ']']).to_owned();
            ensure!(told.contains(&host) && told.contains("secret hub"), "neither host nor secret is named: {told}");
            t.phase(NAME, SEEN, Phase::Refused).await?;
            until(READY, async || {
                let workers = t.workers(NAME).await?.len();
                ensure!(workers == 0, "{workers} workers are left");
                Ok(())
            })
            .await?;
            t.publish(0..20).await?;
            until(FLOW, async || {
                ensure!(t.hub.ready(NAME).await? == 20, "the queue does not have what was published");
                Ok(())
            })
            .await
        };
        let refused = refused.await;
        // All hosts again for the tests that follow, whatever is found.
        operator::install_chart(&t.client).await?;
        refused?;
        t.rows(SEEN + READY, 0..20).await?;
        t.ready(NAME).await.map(drop)
    })
    .await
}
