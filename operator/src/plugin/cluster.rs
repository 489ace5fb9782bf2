//! The cluster, with the rights of who asks. Client required.

use anyhow::{Context as _, Result, bail};
use drover_crds::{
    api::{IngestPipelineSpec, SecretRef, WindowQuerySpec},
    resolved::Pipeline,
    resolved_query::Query,
};
use drover_worker::{hub::HubAddress, tls::Material};
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::{
    Api, Client, Config, Resource,
    api::DynamicObject,
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind, NamespaceResourceScope},
};
use serde::de::DeserializeOwned;

use super::{
    args::{Cluster, Queue},
    command::Scope,
    dead::{DeadLetters, Destination},
    told::Owner,
};
use crate::secrets;

/// A client, and where it was told to go.
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) scope: Scope,
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
        if name.contains('/') {
            bail!("{text:?} is neither NAME nor ipl/NAME nor wq/NAME");
        }
        Ok(Self { kind, plural, name: name.to_owned() })
    }

    /// As kubectl writes it.
    pub(super) fn shown(&self) -> String {
        format!("{}.drover.dev/{}", self.kind.to_ascii_lowercase(), self.name)
    }

    fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk("drover.dev", "v1alpha1", self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
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
        Ok(Self { client: Client::try_from(config)?, scope: Scope::new(args, namespace) })
    }

    /// All objects of a kind in the namespace.
    pub(super) fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.scope.namespace)
    }

    /// All objects of the target's kind, whatever their schema.
    pub(super) fn objects(&self, target: &Target) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.scope.namespace, &target.resource())
    }

    /// The object, whatever its schema.
    pub(super) async fn object(&self, target: &Target) -> Result<DynamicObject> {
        self.objects(target).get(&target.name).await.with_context(|| self.shown(target))
    }

    /// An object and its namespace, for who is told what became of it.
    pub(super) fn shown(&self, target: &Target) -> String {
        format!("{} in namespace {}", target.shown(), self.scope.namespace)
    }

    /// Where an object's dead letters are, and their way back. A query has none: its streams are read in order.
    async fn dead_letters(&self, target: &Target) -> Result<Place> {
        let object = self.object(target).await?;
        let reference = object.object_ref(&target.resource());
        if target.kind == "WindowQuery" {
            let query = Query::resolve(&spec::<WindowQuerySpec>(&object)?).context("the query's spec is refused")?;
            return Ok(Place { hub: query.hub, queue: query.dead_letter_queue, back: None, object: reference });
        }
        let spec: IngestPipelineSpec = spec(&object)?;
        let pipeline = Pipeline::resolve(&spec).context("the pipeline's spec is refused")?;
        let back = Some(Destination::back(&pipeline));
        Ok(Place { hub: pipeline.hub, queue: pipeline.dead_letter_queue, back, object: reference })
    }

    /// An object's dead letters, at the hub of its secret.
    pub(super) async fn letters(&self, target: &Target) -> Result<DeadLetters> {
        let place = self.dead_letters(target).await?;
        Ok(DeadLetters { hub: self.hub(&place.hub).await?, queue: place.queue })
    }

    async fn hub(&self, hub: &SecretRef) -> Result<HubAddress> {
        let name = &hub.name;
        let secret = self.all::<Secret>().get(name).await;
        let secret = secret.with_context(|| format!("secret {name} cannot be read; may you get it?"))?;
        secrets::hub_address(hub, &secrets::text(secret)).map_err(|p| anyhow::anyhow!(p.message))
    }
}

/// What an object asks for; its status may be that of another version's operator.
fn spec<S: DeserializeOwned>(object: &DynamicObject) -> Result<S> {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    serde_json::from_value(spec).context("the spec has another form: plugin and operator are of different versions")
}

/// Where an object's dead letters are.
struct Place {
    /// Secret of the hub.
    hub: SecretRef,
    queue: String,
    back: Option<Destination>,
    object: ObjectReference,
}

/// Dead letters that are meant.
pub(super) struct Meant {
    pub(super) letters: DeadLetters,
    /// Where they came from, if they can go back there.
    pub(super) back: Option<Destination>,
    /// Whose they are, where that is known.
    pub(super) owner: Option<Owner>,
}

/// Finds the dead letters that are meant.
pub(super) async fn dead_letters(cluster: &Cluster, queue: &Queue) -> Result<Meant> {
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
        let back = Some(Destination::Source(source.clone()));
        return Ok(Meant { letters: DeadLetters { hub, queue: dead }, back, owner: None });
    }
    let name = queue.name.as_deref().expect("clap asks for one of the two");
    let target = Target::parse(name)?;
    let access = Access::new(cluster).await?;
    let Place { hub: secret, queue, back, object } = access.dead_letters(&target).await?;
    let mut hub = match (&given, &ca) {
        (Some(uri), Some(_)) => HubAddress { uri: uri.clone(), tls: Material::default() },
        _ => access.hub(&secret).await?,
    };
    hub.uri = given.unwrap_or(hub.uri);
    hub.tls.ca = ca.or(hub.tls.ca);
    let owner = Some(Owner { client: access.client, object });
    Ok(Meant { letters: DeadLetters { hub, queue }, back, owner })
}

#[cfg(test)]
impl Access {
    /// An API server that answers each method so.
    pub(super) fn answering(answer: impl Fn(&str) -> (u16, serde_json::Value) + Clone + Send + Sync + 'static) -> Self {
        use http::{Request, Response};
        use kube::client::Body;

        let service = tower::service_fn(move |request: Request<Body>| {
            let (code, answer) = answer(request.method().as_str());
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            async move { Response::builder().status(code).body(body) }
        });
        Self { client: Client::new(service, "n"), scope: Scope { namespace: "n".to_owned(), ..Scope::default() } }
    }
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

    #[test]
    fn a_path_below_an_object_is_no_name() {
        for text in ["ipl/t/status", "ipl//t", "wq/t/", "ingestpipeline.drover.dev/t/status"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn dead_letters_are_found_whatever_an_operator_of_another_version_has_written() {
        let spec = serde_json::json!({ "hub": {"secretRef": {"name": "hub"}}, "source": {"queue": "q"}, "sink": {"discard": {}} });
        let object = serde_json::json!({
            "apiVersion": "drover.dev/v1alpha1", "kind": "IngestPipeline", "spec": spec,
            "metadata": { "name": "t", "namespace": "n", "uid": "u" }, "status": { "phase": "Pondering" },
        });
        let access = Access::answering(move |_| (200, object.clone()));
        let place = access.dead_letters(&Target::parse("t").unwrap()).await.unwrap();
        assert_eq!((place.queue.as_str(), &*place.hub.name), ("q.dead", "hub"));
        let told_of = (place.object.kind.as_deref(), place.object.uid.as_deref());
        assert_eq!(told_of, (Some("IngestPipeline"), Some("u")));
    }
}
