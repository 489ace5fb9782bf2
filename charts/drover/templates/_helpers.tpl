{{- define "drover.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Names of objects: release and chart, or the release alone where it has the chart's name in it. */ -}}
{{- define "drover.fullname" -}}
{{- $name := include "drover.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* What selects the operator's pod; it never changes. */ -}}
{{- define "drover.selector" -}}
app.kubernetes.io/name: {{ include "drover.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* Labels of every object. `commonLabels` win over part-of alone. */ -}}
{{- define "drover.labels" -}}
{{- $own := fromYaml (include "drover.selector" .) }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- toYaml (merge $own (default dict .Values.commonLabels) (dict "app.kubernetes.io/part-of" "drover")) }}
{{- end }}

{{- /* `annotations:` of a `metadata:`, where it has any: dict "root" $ "own" {…}. Its own win. */ -}}
{{- define "drover.annotations" -}}
{{- with merge (deepCopy (default dict .own)) (default dict .root.Values.commonAnnotations) }}
{{- dict "annotations" . | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{- define "drover.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "drover.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create is false, so set serviceAccount.name: the account `default` would give the operator's rights to every pod of the namespace" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* Full name of an image: dict "root" $ "name" "drover-worker" "digest" "sha256:…" */ -}}
{{- define "drover.image" -}}
{{- $image := .root.Values.image }}
{{- if not $image.registry }}
{{- fail (printf "image.registry is not set, and there is no default: --set image.registry=REGISTRY, where REGISTRY/drover-operator:%[1]s and REGISTRY/drover-worker:%[1]s are (make push REGISTRY=… builds and pushes both)" (default .root.Chart.AppVersion $image.tag)) }}
{{- end }}
{{- $name := printf "%s/%s" $image.registry .name }}
{{- if .digest }}
{{- printf "%s@%s" $name .digest }}
{{- else }}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- /* Every verb of the operator, and the only place where they are. */ -}}
{{- define "drover.rules" -}}
# Patch sets the finalizer.
- apiGroups: [drover.dev]
  resources: [ingestpipelines, windowqueries]
  verbs: [list, watch, patch]
- apiGroups: [drover.dev]
  resources: [ingestpipelines/status, windowqueries/status]
  verbs: [patch]
# By name, as a spec names them.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get{{ if .Values.rbac.mintedSecrets }}, create, patch{{ end }}]
# Server-side apply is patch, and create for what is not there yet; update replaces what was edited by hand.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, update, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch, create, patch, update, delete]
# These go with their owner.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [list, watch, create, patch, update]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch, update]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch, update]
# Why workers do not start, and where they can be asked; one that a message killed is replaced.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- /* Whether a CRD of the cluster (or none: an empty dict) is this release's to write: dict "root" $ "found" CRD. "true" or empty. */ -}}
{{- define "drover.ownsCrd" -}}
{{- $annotations := dig "metadata" "annotations" dict .found | default dict }}
{{- if not .found }}true
{{- else if and (eq (index $annotations "meta.helm.sh/release-name" | default "") .root.Release.Name) (eq (index $annotations "meta.helm.sh/release-namespace" | default "") .root.Release.Namespace) }}true
{{- end }}
{{- end }}
