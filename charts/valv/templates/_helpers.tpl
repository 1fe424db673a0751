{{/* What every name begins with: the release's name if it has the chart's in it, else both. */}}
{{- define "valv.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "valv.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "valv.podLabels" . }}
{{- end -}}

{{/* Labels of every pod of this release, whatever its component. */}}
{{- define "valv.podLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of the operator: `valv uninstall` finds its Deployment and its pods by name and component. */}}
{{- define "valv.operatorLabels" -}}
{{ include "valv.podLabels" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* The operator's ServiceAccount. */}}
{{- define "valv.serviceAccount" -}}
{{- include "valv.fullname" . -}}
{{- end -}}

{{/* Who the API server sees when the operator asks: `request.userInfo.username`. */}}
{{- define "valv.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "valv.serviceAccount" . }}
{{- end -}}

{{/* The ClusterRole that the operator binds to itself in each tenant's namespace. Whatever the release is called: the
bindings outlive it, and what a binding binds cannot be changed. */}}
{{- define "valv.tenantRole" -}}
valv-tenant-manager
{{- end -}}

{{/* The ClusterRole that the operator binds to itself in each drill's namespace. */}}
{{- define "valv.drillRole" -}}
valv-drill-manager
{{- end -}}

{{/* The ClusterRole that the operator binds to the key holder in a drill's namespace. */}}
{{- define "valv.deliveryRole" -}}
valv-keyholder-delivery
{{- end -}}

{{/* The key holder's ServiceAccount, in the namespace of the keys. */}}
{{- define "valv.keyholderAccount" -}}
{{- include "valv.fullname" . }}-keyholder
{{- end -}}

{{/* Labels of the key holder. Not those of all pods of the release: it has walls of its own. */}}
{{- define "valv.keyholderLabels" -}}
{{ include "valv.podLabels" . }}
app.kubernetes.io/component: keyholder
{{- end -}}

{{/* The controllers that empty a namespace that is being deleted: with credentials of their own, and without. */}}
{{- define "valv.namespaceControllers" -}}
['system:serviceaccount:kube-system:namespace-controller', 'system:kube-controller-manager']
{{- end -}}

{{/* The controllers that make pods of workloads, and tend to both: with credentials of their own, and without. */}}
{{- define "valv.workloadControllers" -}}
['system:serviceaccount:kube-system:job-controller', 'system:serviceaccount:kube-system:cronjob-controller', 'system:serviceaccount:kube-system:deployment-controller', 'system:serviceaccount:kube-system:replicaset-controller', 'system:serviceaccount:kube-system:statefulset-controller', 'system:serviceaccount:kube-system:generic-garbage-collector', 'system:kube-controller-manager']
{{- end -}}

{{/* Which policy opens the way to the API server: Standard or Cilium. */}}
{{- define "valv.engine" -}}
{{- if ne .Values.network.engine "Auto" -}}
{{- .Values.network.engine -}}
{{- else if .Capabilities.APIVersions.Has "cilium.io/v2" -}}
Cilium
{{- else -}}
Standard
{{- end -}}
{{- end -}}

{{/* The cluster's DNS servers. */}}
{{- define "valv.dns" -}}
{{- .Values.network.dns | default (dict "namespace" "kube-system" "podLabels" (dict "k8s-app" "kube-dns")) | toYaml -}}
{{- end -}}

{{/* The operator's settings: operator/src/settings.rs is their law. */}}
{{- define "valv.settings" -}}
{{- $images := dict
  "valv" (required "images.valv is not given: the full reference of the image with the valv binary" .Values.images.valv)
  "postgres" (required "images.postgres is not given: the full reference of a PostgreSQL 17 image" .Values.images.postgres)
  "proxy" (required "images.proxy is not given: the full reference of the reverse proxy's image" .Values.images.proxy) -}}
{{- $network := dict
  "clusterCidrs" .Values.network.clusterCidrs
  "dns" (include "valv.dns" . | fromYaml)
  "ingressControllers" .Values.network.ingressControllers
  "stores" .Values.stores.egress -}}
{{- /* A number of values.yaml is a float, and a large one would be written with an exponent. */ -}}
{{- $database := dict "uid" (int64 .Values.database.uid) "resources" .Values.database.resources -}}
{{- $reconcile := dict "concurrency" (int64 .Values.reconcile.concurrency) "resync" .Values.reconcile.resync -}}
{{- $settings := dict
  "images" $images
  "imagePullPolicy" .Values.imagePullPolicy
  "network" $network
  "database" $database
  "reconcile" $reconcile
  "certificates" .Values.certificates
  "backups" (dict "concurrent" (int64 .Values.backups.concurrent) "concurrentCopies" (int64 (.Values.backups.concurrentCopies | default 16)))
  "operatorNamespace" .Release.Namespace
  "serviceAccount" (include "valv.serviceAccount" .)
  "tenantRole" (include "valv.tenantRole" .)
  "drillRole" (include "valv.drillRole" .) -}}
{{- if .Values.keys.keyholder }}
{{- if eq .Values.keys.namespace .Release.Namespace }}{{ fail "keys.namespace is the operator's own namespace, where it can read every Secret: name another" }}{{ end }}
{{- if or (hasPrefix "journal-" .Values.keys.namespace) (hasPrefix "drill-" .Values.keys.namespace) }}{{ fail "keys.namespace begins like a tenant's or a drill's namespace, in which the operator may be let: name another" }}{{ end }}
{{- $keyholder := dict
  "namespace" .Values.keys.namespace
  "serviceAccount" (include "valv.keyholderAccount" .)
  "deliveryRole" (include "valv.deliveryRole" .) -}}
{{- $_ := set $settings "keyholder" $keyholder }}
{{- end -}}
{{- with .Values.storageClassName }}{{ $_ := set $settings "storageClassName" . }}{{ end -}}
{{- $drills := dict "concurrent" (int64 .Values.drills.concurrent) "journalLimit" .Values.drills.journalLimit -}}
{{- with .Values.drills.storageClassName }}{{ $_ := set $drills "storageClassName" . }}{{ end -}}
{{- $_ := set $settings "drills" $drills -}}
{{- $location := dict
  "region" (required "location.region is not given: where this cluster is, so that no backup lies in the same region" .Values.location.region)
  "country" (required "location.country is not given: the country that this cluster is in" .Values.location.country) -}}
{{- with .Values.location.alsoNamed }}{{ $_ := set $location "alsoNamed" . }}{{ end -}}
{{- $_ := set $settings "location" $location -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* What a pod may do on its node: Pod Security `restricted`. */}}
{{- define "valv.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What a container may do: nothing but run. */}}
{{- define "valv.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
