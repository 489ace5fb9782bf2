//! Commands that a person is told to run: whole, so that they go to where this one went. Pure.

use super::args::Cluster;

/// Where the plugin was told to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) namespace: String,
    /// Flags that lead to the cluster, each after a space.
    pub(super) cluster: String,
}

impl Scope {
    pub(super) fn new(cluster: &Cluster, namespace: String) -> Self {
        let kubeconfig = cluster.kubeconfig.as_ref().map(|path| path.to_string_lossy());
        let flags = [("context", cluster.context.as_deref()), ("kubeconfig", kubeconfig.as_deref())];
        let flag = |(name, value): (&str, Option<&str>)| Some(format!(" --{name} {}", quoted(value?)));
        Self { namespace, cluster: flags.into_iter().filter_map(flag).collect() }
    }

    /// One about what is in the namespace.
    pub(super) fn command(&self, command: &str) -> String {
        format!("{command} -n {}{}", self.namespace, self.cluster)
    }

    /// One about what is in no namespace, or in all of them.
    pub(super) fn everywhere(&self, command: &str) -> String {
        format!("{command}{}", self.cluster)
    }

    /// How to find out whether the operator runs, and whether it is for this namespace.
    pub(super) fn see_the_operator(&self) -> String {
        let pods = self.everywhere("kubectl get pods -A -l app.kubernetes.io/part-of=drover");
        format!("see that it runs: {pods}; where the chart's watchNamespaces is set, it must have {}", self.namespace)
    }
}

/// As a shell takes it for one word.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(context: Option<&str>, kubeconfig: Option<&str>) -> Scope {
        let cluster =
            Cluster { namespace: None, context: context.map(str::to_owned), kubeconfig: kubeconfig.map(Into::into) };
        Scope::new(&cluster, "iot".to_owned())
    }

    #[test]
    fn a_command_goes_to_where_the_one_that_told_of_it_went() {
        assert_eq!(scope(None, None).command("kubectl drover why t"), "kubectl drover why t -n iot");
        let elsewhere = scope(Some("arn:aws:eks:x:1:cluster/a"), Some("/tmp/my config"));
        let flags = "--context arn:aws:eks:x:1:cluster/a --kubeconfig '/tmp/my config'";
        assert_eq!(elsewhere.command("kubectl drover why t"), format!("kubectl drover why t -n iot {flags}"));
        assert_eq!(elsewhere.everywhere("kubectl get pods -A"), format!("kubectl get pods -A {flags}"));
    }

    #[test]
    fn who_looks_for_the_operator_is_told_its_label_and_which_namespaces_it_must_have() {
        let told = scope(Some("prod"), None).see_the_operator();
        assert!(told.contains("kubectl get pods -A -l app.kubernetes.io/part-of=drover --context prod"), "{told}");
        assert!(told.contains("watchNamespaces") && told.ends_with("must have iot"), "{told}");
    }

    #[test]
    fn a_word_stays_one_to_a_shell() {
        assert_eq!(["a@b", "", "a b", "it's", "$x"].map(quoted), ["a@b", "''", "'a b'", r"'it'\''s'", "'$x'"]);
    }
}
