{{- /*
Templates for a chart that has this one as a dependency. ../example uses all of them. Each takes the chart's root context:

  pontoon.sidecar      the container: a list for initContainers
  pontoon.volumes      the volumes: a list for volumes
  pontoon.mounts       the socket's folder, or nothing: a list for the volumeMounts of the app's containers
  pontoon.labels       labels of the pod
  pontoon.annotations  annotations of the pod, so that a change of the configuration restarts it
  pontoon.resources    all objects: the ConfigMap, and those that the values turn on

The container, the volumes and the objects are those of the Kustomize components, to which files/ has links. `helm package` replaces
the links with the files.
*/ -}}

{{- /* The pod template of the components that the values turn on, with the sidecar as its only container. */ -}}
{{- define "pontoon.pod" -}}
{{- $values := .Values.pontoon -}}
{{- $files := .Subcharts.pontoon.Files -}}
{{- $container := dict -}}
{{- $volumes := list -}}
{{- $labels := dict -}}
{{- range $component := list "sidecar" "metrics" "readiness" "socket" -}}
{{- if or (eq $component "sidecar") (get $values $component) -}}
{{- $pod := ($files.Get (printf "files/kubernetes/%s/workload.yaml" $component) | fromYaml).spec.template -}}
{{- range $key, $value := first $pod.spec.initContainers -}}
{{- if kindIs "slice" $value -}}
{{- $value = concat $value (get $container $key | default list) -}}
{{- end -}}
{{- $_ := set $container $key $value -}}
{{- end -}}
{{- $volumes = concat ($pod.spec.volumes | default list) $volumes -}}
{{- $labels = merge $labels (($pod.metadata).labels | default dict) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $container "image" (required "pontoon.image is required" $values.image) -}}
{{- $_ := set $container "env" (concat $container.env $values.env) -}}
{{- with $values.resources -}}
{{- $_ := set $container "resources" . -}}
{{- end -}}
{{- range $volumes -}}
{{- with .configMap -}}
{{- $_ := set . "name" (include "pontoon.name" $) -}}
{{- end -}}
{{- end -}}
{{- $volumes = concat $volumes $values.volumes -}}
{{- $_ := set $container "volumeMounts" (concat $container.volumeMounts $values.volumeMounts) -}}
{{- $_ := set $labels "pontoon" .Release.Name -}}
{{- dict "container" $container "volumes" $volumes "labels" $labels | toYaml -}}
{{- end -}}

{{- /* The name of all objects. */ -}}
{{- define "pontoon.name" -}}
{{- printf "%s-pontoon" .Release.Name -}}
{{- end -}}

{{- define "pontoon.sidecar" -}}
{{- list (include "pontoon.pod" . | fromYaml).container | toYaml -}}
{{- end -}}

{{- define "pontoon.volumes" -}}
{{- (include "pontoon.pod" . | fromYaml).volumes | toYaml -}}
{{- end -}}

{{- define "pontoon.labels" -}}
{{- (include "pontoon.pod" . | fromYaml).labels | toYaml -}}
{{- end -}}

{{- define "pontoon.annotations" -}}
checksum/pontoon: {{ .Values.pontoon.config | sha256sum }}
{{- end -}}

{{- define "pontoon.mounts" -}}
{{- $mounts := list -}}
{{- range (include "pontoon.pod" . | fromYaml).container.volumeMounts -}}
{{- if eq .name "pontoon-socket" -}}
{{- $mounts = append $mounts (set . "readOnly" true) -}}
{{- end -}}
{{- end -}}
{{- $mounts | toYaml -}}
{{- end -}}

{{- define "pontoon.resources" -}}
{{- $values := .Values.pontoon -}}
{{- $files := .Subcharts.pontoon.Files -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "pontoon.name" . }}
data:
  pontoon.toml: {{ required "pontoon.config is required" $values.config | toJson }}
{{- if $values.podMonitor }}
---
{{ $monitor := $files.Get "files/kubernetes/metrics/podmonitor.yaml" | fromYaml -}}
{{- $_ := set $monitor.metadata "name" (include "pontoon.name" .) -}}
{{- with $values.prometheusLabels -}}
{{- $_ := set $monitor.metadata "labels" . -}}
{{- end -}}
{{- $_ := set $monitor.spec.selector "matchLabels" (dict "pontoon" .Release.Name) -}}
{{- $monitor | toYaml }}
{{- end }}
{{- if $values.prometheusRule }}
---
{{ $rule := $files.Get "files/prometheus/prometheusrule.yaml" | fromYaml -}}
{{- $_ := set $rule.metadata "name" (include "pontoon.name" .) -}}
{{- with $values.prometheusLabels -}}
{{- $_ := set $rule.metadata "labels" . -}}
{{- end -}}
{{- $rule | toYaml }}
{{- end }}
{{- if $values.dashboard }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "pontoon.name" . }}-dashboard
  labels:
    grafana_dashboard: "1"
data:
  pontoon.json: {{ $files.Get "files/grafana/pontoon.json" | toJson }}
{{- end }}
{{- with $values.networkPolicy }}
{{- if .enabled }}
---
{{ $policy := $files.Get "files/kubernetes/network-policy/networkpolicy.yaml" | fromYaml -}}
{{- $_ := set $policy.metadata "name" (include "pontoon.name" $) -}}
{{- $_ := set $policy.spec.podSelector "matchLabels" (dict "pontoon" $.Release.Name) -}}
{{- $ports := list -}}
{{- range .redisPorts -}}
{{- $ports = append $ports (dict "protocol" "TCP" "port" .) -}}
{{- end -}}
{{- $redis := dict "ports" $ports -}}
{{- $networks := list -}}
{{- range .redisNetworks -}}
{{- $networks = append $networks (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- with $networks -}}
{{- $_ := set $redis "to" . -}}
{{- end -}}
{{- $_ := set $policy.spec "egress" (list (first $policy.spec.egress) $redis) -}}
{{- range $policy.spec.ingress -}}
{{- range .from -}}
{{- $_ := set .namespaceSelector "matchLabels" (dict "kubernetes.io/metadata.name" $values.networkPolicy.prometheusNamespace) -}}
{{- end -}}
{{- end -}}
{{- $policy | toYaml }}
{{- end }}
{{- end }}
{{- end -}}
