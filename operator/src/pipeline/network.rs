//! Whom workers may talk to. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::render::Subject;
use crate::names;

/// Where names are resolved.
const DNS: u16 = 53;

impl Subject<'_> {
    /// Out: DNS, the ports of hub, sink and collector, and what the spec adds. In: the port with health, metrics and state, from the
    /// operator's namespace and from those that are labelled for it.
    pub(super) fn network_policy(&self) -> NetworkPolicy {
        let ports = [Some(self.secrets.hub_port), self.secrets.sink_port, self.install.collector.port];
        let namespace = self.install.namespace.as_deref();
        policy(self.service_account().metadata, self.selector(), &ports, &self.pipeline.egress, namespace)
    }
}

/// Adds what may go out so far: the pods of another revision may need it.
pub(super) fn keep(policy: &mut NetworkPolicy, live: &NetworkPolicy) {
    let rules = policy.spec.get_or_insert_default().egress.get_or_insert_default();
    for rule in live.spec.iter().flat_map(|spec| spec.egress.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
}

/// Out: DNS, some ports, each once, and what a spec adds. In: the workers' port, from the operator's namespace and from those that are labelled.
pub(crate) fn policy(
    metadata: ObjectMeta,
    selector: LabelSelector,
    ports: &[Option<u16>],
    egress: &[NetworkPolicyEgressRule],
    operator: Option<&str>,
) -> NetworkPolicy {
    let mut open = Vec::new();
    for port in ports.iter().flatten() {
        if !open.contains(port) {
            open.push(*port);
        }
    }
    let open = open.into_iter().map(|number| port("TCP", number));
    let mut rules = vec![out(vec![port("UDP", DNS), port("TCP", DNS)]), out(open.collect())];
    rules.extend(egress.iter().cloned());
    let mut from = vec![namespace(names::METRICS, "allowed")];
    from.extend(operator.map(|n| namespace("kubernetes.io/metadata.name", n)));
    NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            egress: Some(rules),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(from),
                ports: Some(vec![port("TCP", u16::try_from(names::WORKER_PORT).unwrap_or_default())]),
            }]),
        }),
    }
}

fn out(ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { ports: Some(ports), to: None }
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(i32::from(number))),
        end_port: None,
    }
}

fn namespace(label: &str, value: &str) -> NetworkPolicyPeer {
    let labels = BTreeMap::from([(label.to_owned(), value.to_owned())]);
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector { match_labels: Some(labels), match_expressions: None }),
        ..NetworkPolicyPeer::default()
    }
}
