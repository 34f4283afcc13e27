{{- define "tap53.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "tap53.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tap53.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tap53.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "tap53.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tap53.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods; must never change, since a DaemonSet's selector cannot. */}}
{{- define "tap53.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tap53.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tap53.labels" -}}
{{ include "tap53.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tap53.image" -}}
{{- $registry := default .Values.image.registry (default dict .Values.global).imageRegistry -}}
{{- $name := ternary .Values.image.repository (printf "%s/%s" $registry .Values.image.repository) (empty $registry) -}}
{{- if .Values.image.digest -}}
{{ $name }}@{{ .Values.image.digest }}
{{- else -}}
{{ $name }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* Ports of the brokers and schema registries of all Kafka sinks, and of the collector that metrics are
     exported to, as a JSON list, sorted, without duplicates. */}}
{{- define "tap53.outgoingPorts" -}}
{{- $ports := list -}}
{{- range .Values.config.sinks -}}
{{- if eq .type "kafka" -}}
{{- range .brokers -}}
{{- $ports = append $ports (regexFind "[0-9]+$" .) -}}
{{- end -}}
{{- with .registry -}}
{{- range .urls -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" -}}
{{- $ports = append $ports (default (ternary "443" "80" (hasPrefix "https:" .)) $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with ((.Values.config.telemetry | default dict).otlp | default dict).endpoint -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" -}}
{{- $ports = append $ports (default (ternary "443" "80" (hasPrefix "https:" .)) $port) -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Where the agent listens for probes and Prometheus; empty where it does not. */}}
{{- define "tap53.telemetry" -}}
{{- with .Values.config.telemetry -}}
{{- if ne (toString .enabled) "false" -}}
{{- default "127.0.0.1:9530" .listen -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The port at which Prometheus finds the agents; refused where it cannot reach them. */}}
{{- define "tap53.scrapedPort" -}}
{{- $listen := include "tap53.telemetry" . -}}
{{- if or (not $listen) (hasPrefix "127." $listen) (hasPrefix "[::1]" $listen) -}}
{{- fail "podMonitor and serviceMonitor need config.telemetry.listen at an address that Prometheus reaches, such as 0.0.0.0:9530" -}}
{{- end -}}
{{- regexFind "[0-9]+$" $listen -}}
{{- end -}}

{{/* The same, as the node's own processes reach it. */}}
{{- define "tap53.localTelemetry" -}}
{{- $listen := include "tap53.telemetry" . -}}
{{- $host := regexReplaceAll ":[0-9]+$" $listen "" | trimAll "[]" -}}
{{- if has $host (list "0.0.0.0" "::") -}}
{{- $host = "127.0.0.1" -}}
{{- end -}}
{{- dict "host" $host "port" (regexFind "[0-9]+$" $listen) | toJson -}}
{{- end -}}

{{/* The same, for the pod of `helm test`, on the node's network or on its own. */}}
{{- define "tap53.testedAgent" -}}
{{- $local := include "tap53.localTelemetry" . | fromJson -}}
{{- if .Values.test.hostNetwork -}}
[{{ $local.host }}]:{{ $local.port }}
{{- else if or (hasPrefix "127." (include "tap53.telemetry" .)) (hasPrefix "[::1]" (include "tap53.telemetry" .)) -}}
{{- fail "test.hostNetwork: false needs config.telemetry.listen at an address that pods reach, such as 0.0.0.0:9530" -}}
{{- else -}}
[$(HOST_IP)]:{{ $local.port }}
{{- end -}}
{{- end -}}

{{/* Refuses a control socket in a directory that the agent cannot write to: the container's own file
     system is read-only, so the socket would be missing and the liveness probe would fail. */}}
{{- define "tap53.checkSocket" -}}
{{- $directories := list "/run/tap53" -}}
{{- if include "tap53.stateVolume" . -}}
{{- $directories = append $directories "/var/lib/tap53" -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- $directories = append $directories .mountPath -}}
{{- end -}}
{{- $socket := .Values.config.control.socket -}}
{{- $mounted := false -}}
{{- range $directories -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .)) $socket -}}
{{- $mounted = true -}}
{{- end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "config.control.socket: %s is not in a mounted directory (%s): the container's file system is read-only; choose one of these or add a volume with extraVolumes and extraVolumeMounts" $socket (join ", " $directories)) -}}
{{- end -}}
{{- end -}}

{{/* Asked through the pod's own socket: nobody outside of the pod can keep it from being answered, as
     anybody who reaches the telemetry port could. Where there is no socket, by HTTP; the kubelet is on
     the agent's network, so loopback does. */}}
{{- define "tap53.liveness" -}}
{{- $control := default dict .Values.config.control -}}
{{- $listen := include "tap53.telemetry" . -}}
{{- if and $listen (eq (toString $control.enabled) "false") -}}
{{- $local := include "tap53.localTelemetry" . | fromJson -}}
httpGet: {host: {{ $local.host | quote }}, path: /livez, port: {{ $local.port }}}
{{- else if $control.socket -}}
{{- include "tap53.checkSocket" . -}}
exec: {command: [/usr/bin/tap53, status, --check, live, --socket, {{ $control.socket | quote }}]}
{{- else -}}
exec: {command: [/usr/bin/tap53, status, --check, live]}
{{- end -}}
{{- end -}}

{{/* The liveness probe that waits for the agent: the kubelet reports each probe that fails as an Unhealthy
     event, and a rollout waits for the first one that passes. */}}
{{- define "tap53.startup" -}}
{{- $probe := include "tap53.liveness" . | fromYaml -}}
{{- with $probe.exec -}}
exec: {command: [{{ join ", " (concat .command (list "--wait" "60s")) }}]}
{{- else -}}
{{- include "tap53.liveness" . -}}
{{- end -}}
{{- end -}}

{{/* The time to flush, and thirty seconds: to detach, for workers that empty full rings into a sink
     without room (200 ms a batch), and to write the last ledger. */}}
{{- define "tap53.gracePeriod" -}}
{{- $shutdown := default dict .Values.config.shutdown -}}
{{- $flush := default 10000 $shutdown.flush_timeout_ms -}}
{{- add (ceil (divf $flush 1000)) 30 -}}
{{- end -}}

{{/* Not empty if the agent asks the API server whose an address is: the section is there, and not off. */}}
{{- define "tap53.asksKubernetes" -}}
{{- if .Values.config.kubernetes -}}
{{- ne (toString .Values.config.kubernetes.enabled) "false" | ternary "yes" "" -}}
{{- end -}}
{{- end -}}

{{/* The volume at /var/lib/tap53; empty where there is none. */}}
{{- define "tap53.stateVolume" -}}
{{- if kindIs "map" .Values.stateVolume -}}
{{- toYaml .Values.stateVolume -}}
{{- else if or (not (hasKey .Values "stateVolume")) (eq (toString .Values.stateVolume) "hostPath") -}}
hostPath: {path: /var/lib/tap53, type: DirectoryOrCreate}
{{- end -}}
{{- end -}}

{{/* Not empty if records name containers by the cgroups of their sockets. */}}
{{- define "tap53.followsContainers" -}}
{{- $containers := default dict .Values.config.containers -}}
{{- ne (toString $containers.enabled) "false" | ternary "yes" "" -}}
{{- end -}}

{{/* The interfaces to capture from, as a JSON list: those of the values, else the node's own devices, the
     pods', and the additions of the presets. */}}
{{- define "tap53.include" -}}
{{- $interfaces := default dict .Values.config.interfaces -}}
{{- $include := list "kind:physical" "kind:pods" -}}
{{- $presets := .Files.Get "files/presets.yaml" | fromYaml -}}
{{- range .Values.presets -}}
{{- $include = concat $include (default list (get $presets .).interfaces) -}}
{{- end -}}
{{- default ($include | uniq) $interfaces.include | toJson -}}
{{- end -}}

{{/* Refuses brokers and registries of the chart's default values, which are nowhere (RFC 2606). */}}
{{- define "tap53.checkPlaceholders" -}}
{{- range $number, $sink := .Values.config.sinks -}}
{{- if eq $sink.type "kafka" -}}
{{- range $sink.brokers -}}
{{- if regexMatch "[.]example:[0-9]+$" . -}}
{{- fail (printf "config.sinks[%d].brokers: %s is a placeholder: name the brokers of your cluster, as host:port" $number .) -}}
{{- end -}}
{{- end -}}
{{- range (default dict $sink.registry).urls -}}
{{- if regexMatch "[.]example(:[0-9]+)?$" (urlParse .).host -}}
{{- fail (printf "config.sinks[%d].registry.urls: %s is a placeholder: name your schema registry, or leave registry out" $number .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The configuration: that of the values, with the host's cgroups, and with spools and state where
     there is a volume for them. */}}
{{- define "tap53.config" -}}
{{- include "tap53.checkPlaceholders" . -}}
{{- $config := deepCopy .Values.config -}}
{{- $interfaces := default dict $config.interfaces -}}
{{- $_ := set $interfaces "include" (include "tap53.include" . | fromJsonArray) -}}
{{- $_ := set $config "interfaces" $interfaces -}}
{{- $presets := .Files.Get "files/presets.yaml" | fromYaml -}}
{{- range .Values.presets -}}
{{/* The first one has precedence. */}}
{{- $_ := set $config "capture" (merge (default dict $config.capture) (default dict (get $presets .).capture)) -}}
{{- end -}}
{{- if include "tap53.followsContainers" . -}}
{{- $containers := default dict $config.containers -}}
{{- if not (hasKey $containers "cgroup_root") -}}
{{- $_ := set $containers "cgroup_root" "/host/sys/fs/cgroup" -}}
{{- end -}}
{{- $_ := set $config "containers" $containers -}}
{{- end -}}
{{- if include "tap53.stateVolume" . -}}
{{- if not (hasKey $config "state") -}}
{{- $_ := set $config "state" (dict "directory" "/var/lib/tap53/state") -}}
{{- end -}}
{{/* YAML 1.1 reads off as false. */}}
{{- $mode := toString .Values.spool.mode -}}
{{- if not (has $mode (list "off" "false")) -}}
{{- $number := 0 -}}
{{- range $config.sinks -}}
{{- if and (eq .type "kafka") (not (hasKey . "spool")) -}}
{{- $directory := "/var/lib/tap53/spool" -}}
{{- if .name -}}
{{- $directory = printf "/var/lib/tap53/spool-%s" .name -}}
{{- else if $number -}}
{{- $directory = printf "/var/lib/tap53/spool-%d" $number -}}
{{- end -}}
{{- $_ := set . "spool" (dict "mode" $mode "directory" $directory "max_bytes" (int64 $.Values.spool.maxBytes)) -}}
{{- $number = add1 $number -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
