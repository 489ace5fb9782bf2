//! The cluster, with the rights of who asks. Client required.

use anyhow::{Context as _, Result, bail};
use drover_crds::{
    api::{IngestPipeline, SecretRef, WindowQuery},
    resolved::Pipeline,
    resolved_query::Query,
};
use drover_worker::{hub::HubAddress, tls::Material};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    api::DynamicObject,
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};

use super::{
    args::{Cluster, Queue},
    dead::{DeadLetters, Destination},
};
use crate::secrets;

/// A client, and the namespace that is meant.
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) namespace: String,
}

/// An object of one of the two kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) name: String,
}

impl Target {
    /// Reads `NAME`, `ipl/NAME` or `wq/NAME`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (kind, name) = text.split_once('/').unwrap_or(("ipl", text));
        let kind = kind.to_ascii_lowercase();
        let (kind, plural) = match kind.strip_suffix(".drover.dev").unwrap_or(&kind) {
            "ipl" | "ingestpipeline" | "ingestpipelines" => ("IngestPipeline", "ingestpipelines"),
            "wq" | "windowquery" | "windowqueries" => ("WindowQuery", "windowqueries"),
            other => bail!("{other} is neither ipl (IngestPipeline) nor wq (WindowQuery)"),
        };
        if name.is_empty() {
            bail!("{text:?} has no name");
        }
        Ok(Self { kind, plural, name: name.to_owned() })
    }

    /// As kubectl writes it.
    pub(super) fn shown(&self) -> String {
        format!("{}.drover.dev/{}", self.kind.to_ascii_lowercase(), self.name)
    }
}

impl Access {
    pub(super) async fn new(args: &Cluster) -> Result<Self> {
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let config = match &args.kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None if args.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        };
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// All objects of the target's kind, whatever their schema.
    pub(super) fn objects(&self, target: &Target) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("drover.dev", "v1alpha1", target.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, target.plural);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Secret of the hub, dead-letter queue and way back of an object. A query has none: its streams are read in order.
    async fn dead_letters(&self, target: &Target) -> Result<(SecretRef, String, Option<Destination>)> {
        let (client, namespace) = (self.client.clone(), &self.namespace);
        let missing = || format!("{} in namespace {namespace}", target.shown());
        if target.kind == "WindowQuery" {
            let object = Api::<WindowQuery>::namespaced(client, namespace).get(&target.name).await;
            let query = Query::resolve(&object.with_context(missing)?.spec).context("the query's spec is refused")?;
            return Ok((query.hub, query.dead_letter_queue, None));
        }
        let object = Api::<IngestPipeline>::namespaced(client, namespace).get(&target.name).await;
        let pipeline =
            Pipeline::resolve(&object.with_context(missing)?.spec).context("the pipeline's spec is refused")?;
        let back = Destination::back(&pipeline);
        Ok((pipeline.hub, pipeline.dead_letter_queue, Some(back)))
    }

    /// An object's dead letters, at the hub of its secret.
    pub(super) async fn letters(&self, target: &Target) -> Result<DeadLetters> {
        let (secret, queue, _) = self.dead_letters(target).await?;
        Ok(DeadLetters { hub: self.hub(&secret).await?, queue })
    }

    async fn hub(&self, hub: &SecretRef) -> Result<HubAddress> {
        let name = &hub.name;
        let secret = Api::<Secret>::namespaced(self.client.clone(), &self.namespace).get(name).await;
        let secret = secret.with_context(|| format!("secret {name} cannot be read; may you get it?"))?;
        secrets::hub_address(hub, &secrets::text(secret)).map_err(|p| anyhow::anyhow!(p.message))
    }
}

/// Whose dead letters are meant, and where they came from, if they can go back there.
pub(super) async fn dead_letters(cluster: &Cluster, queue: &Queue) -> Result<(DeadLetters, Option<Destination>)> {
    let ca = queue
        .hub_ca
        .as_ref()
        .map(|path| std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display())));
    let ca = ca.transpose()?;
    let given = queue.hub_uri.clone().filter(|uri| !uri.is_empty());
    if let Some(source) = &queue.queue {
        let uri = given.context("without Kubernetes, the environment variable DROVER_HUB_URI must name the hub")?;
        let dead = queue.dead_queue.clone().unwrap_or_else(|| format!("{source}.dead"));
        let hub = HubAddress { uri, tls: Material { ca, ..Material::default() } };
        return Ok((DeadLetters { hub, queue: dead }, Some(Destination::Source(source.clone()))));
    }
    let name = queue.name.as_deref().expect("clap asks for one of the two");
    let target = Target::parse(name)?;
    let access = Access::new(cluster).await?;
    let (secret, dead, back) = access.dead_letters(&target).await?;
    let mut hub = match (&given, &ca) {
        (Some(uri), Some(_)) => HubAddress { uri: uri.clone(), tls: Material::default() },
        _ => access.hub(&secret).await?,
    };
    hub.uri = given.unwrap_or(hub.uri);
    hub.tls.ca = ca.or(hub.tls.ca);
    Ok((DeadLetters { hub, queue: dead }, back))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_kubectl_names_them() {
        for (text, kind) in [
            ("t", "IngestPipeline"),
            ("ipl/t", "IngestPipeline"),
            ("ingestpipeline.drover.dev/t", "IngestPipeline"),
            ("wq/t", "WindowQuery"),
            ("windowqueries/t", "WindowQuery"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.kind, target.name.as_str()), (kind, "t"));
        }
        assert!(Target::parse("pod/t").is_err() && Target::parse("wq/").is_err());
    }
}
