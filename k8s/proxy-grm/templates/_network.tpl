{{/* Rules that several policies have. */}}

{{- define "proxy-grm.dnsRule" -}}
{{- /* To anybody: a cache on the node has an address of its own kind. */}}
- ports: [{ port: 53, protocol: UDP }, { port: 53, protocol: TCP }]
{{- end }}

{{- define "proxy-grm.redisRule" -}}
{{- if .Values.redis.bundled.enabled }}
- to:
    - podSelector:
        matchLabels:
          {{- include "proxy-grm.selector" (dict "root" . "component" "redis") | nindent 10 }}
  ports: [{ port: 6379 }]
{{- else }}
- to:
    {{- range (required "redis.external.cidrs: the network policies have to say where the external Redis is" (.Values.redis.external.cidrs | default nil)) }}
    - ipBlock: { cidr: {{ . | quote }} }
    {{- end }}
  ports: [{ port: {{ .Values.redis.external.port }} }]
{{- end }}
{{- end }}

{{/* The world without what is private, of this machine, or the cloud's own (metadata is link-local). */}}
{{- define "proxy-grm.publicRule" -}}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: [0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3]
    - ipBlock:
        cidr: 2000::/3
  ports: [{ port: 443 }]
{{- end }}
