{{- /* Generated from values.yaml by `make generate`: the defaults, the paths of sections, and the paths of what has no
     default where it is left blank. */ -}}
{{- define "beamlit.defaults" -}}
{
  "defaults": {
    "nameOverride": "",
    "fullnameOverride": "",
    "installMetricServer": false,
    "installBeamlitGateway": true,
    "beamlitApiToken": "",
    "beamlitApiTokenExistingSecret": "",
    "beamlitBaseUrl": "https://api.beamlit.dev/v0",
    "allowedNamespaces": [],
    "config": {
      "enableHTTP2": false,
      "secureMetrics": false,
      "enableLeaderElection": false,
      "metricsAddr": "",
      "probeAddr": "",
      "namespaces": "default",
      "clusterDomain": "",
      "defaultRemoteBackend": {
        "host": "run.beamlit.dev",
        "scheme": "https",
        "pathPrefix": "/$workspace/$model",
        "workspace": "",
        "headersToAdd": {},
        "headersToRemove": [],
        "forwardHeaders": [],
        "forwarded": "none",
        "price": 0,
        "promptPrice": 0,
        "authConfig": {
          "type": "oauth",
          "oauthConfig": {
            "clientId": "",
            "clientSecret": "",
            "existingSecret": "",
            "tokenUrl": "https://api.beamlit.dev/v0/oauth/token",
            "scope": "",
            "audience": "",
            "resource": "",
            "parameters": {},
            "tokenAuth": "",
            "caConfigMap": "",
            "caSecret": ""
          }
        },
        "location": {
          "name": "",
          "country": "",
          "continent": ""
        },
        "flavors": []
      },
      "tls": {
        "strict": false
      },
      "metricInformer": {
        "type": "kubernetes",
        "resolutionSeconds": 15,
        "pods": {
          "allowedAddresses": []
        },
        "prometheus": {
          "address": "",
          "timeoutSeconds": 2,
          "scrapeIntervalSeconds": 60,
          "namespaceLabel": "",
          "insecureSkipVerify": false,
          "caConfigMap": "",
          "caSecret": "",
          "basicAuth": {
            "username": "",
            "password": "",
            "existingSecret": ""
          },
          "bearer": {
            "token": "",
            "existingSecret": ""
          }
        }
      },
      "proxyService": {
        "namespace": "",
        "name": "",
        "port": 80,
        "adminPort": 8081,
        "adminAddress": ""
      },
      "hooks": {},
      "gateway": {}
    },
    "image": {
      "repository": "ghcr.io/beamlit/beamlit-controller",
      "tag": "",
      "digest": "",
      "pullPolicy": "IfNotPresent"
    },
    "imagePullSecrets": [],
    "commonLabels": {},
    "commonAnnotations": {},
    "podSecurityContext": {
      "runAsNonRoot": true,
      "runAsUser": 65532,
      "runAsGroup": 65532,
      "fsGroup": 65532,
      "seccompProfile": {
        "type": "RuntimeDefault"
      }
    },
    "containerSecurityContext": {
      "allowPrivilegeEscalation": false,
      "readOnlyRootFilesystem": true,
      "runAsNonRoot": true,
      "capabilities": {
        "drop": [
          "ALL"
        ]
      }
    },
    "userRoles": {
      "aggregate": false
    },
    "admissionPolicy": {
      "enabled": true
    },
    "monitoring": {
      "from": [],
      "podMonitor": {
        "enabled": false,
        "labels": {},
        "interval": ""
      },
      "serviceMonitor": {
        "enabled": false,
        "labels": {},
        "interval": ""
      },
      "prometheusRule": {
        "enabled": false,
        "labels": {},
        "runbooks": "https://github.com/beamlit/beamlit-controller/blob/main/docs/runbooks",
        "alerts": {
          "nothingServes": {
            "severity": "critical",
            "percentage": 90,
            "for": "2m"
          },
          "requestsFail": {
            "severity": "warning",
            "percentage": 5,
            "for": "10m"
          },
          "offloadedLong": {
            "severity": "warning",
            "percentage": 50,
            "for": "4h"
          },
          "credentialsRefused": {
            "severity": "critical",
            "attempts": 1,
            "for": "1m"
          },
          "remoteFails": {
            "severity": "warning",
            "for": "15m"
          },
          "spendHigh": {
            "severity": "warning",
            "amount": 100,
            "for": "5m"
          },
          "tableStale": {
            "severity": "warning",
            "seconds": 300,
            "for": "5m"
          },
          "issuerKeysStale": {
            "severity": "warning",
            "seconds": 600,
            "for": "5m"
          },
          "routeRefused": {
            "severity": "warning",
            "documents": 1,
            "for": "10m"
          },
          "gatewayMissing": {
            "severity": "critical",
            "for": "5m"
          },
          "hooksFail": {
            "severity": "warning",
            "percentage": 10,
            "for": "15m"
          },
          "certificateEndsSoon": {
            "severity": "warning",
            "days": 14,
            "for": "1h"
          }
        }
      },
      "dashboard": {
        "enabled": false,
        "labels": {
          "grafana_dashboard": "1"
        },
        "annotations": {},
        "namespace": ""
      }
    },
    "hooks": {
      "url": "",
      "replicas": 2,
      "tls": {
        "existingSecret": "",
        "caBundle": "",
        "caConfigMap": "",
        "generation": ""
      },
      "auth": {
        "bearer": {
          "enabled": false,
          "existingSecret": ""
        }
      },
      "serviceAccount": {
        "create": true,
        "name": "",
        "annotations": {}
      },
      "podDisruptionBudget": {
        "enabled": true,
        "maxUnavailable": 1,
        "minAvailable": ""
      },
      "spreadOverNodes": true,
      "topologySpreadConstraints": [],
      "resources": {
        "requests": {
          "cpu": "50m",
          "memory": "128Mi"
        },
        "limits": {
          "memory": "512Mi"
        }
      },
      "podAnnotations": {},
      "podLabels": {},
      "env": [],
      "extraVolumes": [],
      "extraVolumeMounts": [],
      "nodeSelector": {},
      "tolerations": [],
      "affinity": {},
      "priorityClassName": "",
      "networkPolicy": {
        "enabled": true
      }
    },
    "gateway": {
      "replicas": 2,
      "service": {
        "type": "ClusterIP",
        "port": 80,
        "nodePort": 0,
        "loadBalancerClass": "",
        "loadBalancerSourceRanges": [],
        "externalTrafficPolicy": "",
        "annotations": {}
      },
      "access": {
        "existingSecret": "",
        "jwtCaConfigMap": "",
        "rulesConfigMap": ""
      },
      "tracing": {
        "headersSecret": ""
      },
      "lameDuckSeconds": 5,
      "drainSeconds": 25,
      "autoscaling": {
        "enabled": false,
        "minReplicas": 2,
        "maxReplicas": 10,
        "targetCPUUtilizationPercentage": 70
      },
      "serviceAccount": {
        "create": true,
        "name": "",
        "annotations": {}
      },
      "podDisruptionBudget": {
        "enabled": true,
        "maxUnavailable": 1,
        "minAvailable": ""
      },
      "spreadOverNodes": true,
      "topologySpreadConstraints": [],
      "resources": {
        "requests": {
          "cpu": "200m",
          "memory": "128Mi"
        },
        "limits": {
          "memory": "1Gi"
        }
      },
      "podAnnotations": {},
      "podLabels": {},
      "env": [],
      "extraVolumes": [],
      "extraVolumeMounts": [],
      "nodeSelector": {},
      "tolerations": [],
      "affinity": {},
      "priorityClassName": "",
      "networkPolicy": {
        "enabled": true,
        "from": []
      }
    },
    "existingMetacontroller": {
      "namespace": "metacontroller",
      "serviceAccount": "metacontroller",
      "podLabels": {
        "app.kubernetes.io/name": "metacontroller"
      }
    },
    "kubernetesClusterDomain": "",
    "controllerManager": {},
    "metricsService": {},
    "beamlit-gateway": {}
  },
  "sections": [
    "admissionPolicy",
    "config",
    "config.defaultRemoteBackend",
    "config.defaultRemoteBackend.authConfig",
    "config.defaultRemoteBackend.authConfig.oauthConfig",
    "config.defaultRemoteBackend.location",
    "config.metricInformer",
    "config.metricInformer.pods",
    "config.metricInformer.prometheus",
    "config.metricInformer.prometheus.basicAuth",
    "config.metricInformer.prometheus.bearer",
    "config.proxyService",
    "config.tls",
    "existingMetacontroller",
    "gateway",
    "gateway.access",
    "gateway.autoscaling",
    "gateway.networkPolicy",
    "gateway.podDisruptionBudget",
    "gateway.service",
    "gateway.serviceAccount",
    "gateway.tracing",
    "hooks",
    "hooks.auth",
    "hooks.auth.bearer",
    "hooks.networkPolicy",
    "hooks.podDisruptionBudget",
    "hooks.serviceAccount",
    "hooks.tls",
    "image",
    "metacontroller",
    "metacontroller.rbac",
    "metacontroller.serviceAccount",
    "monitoring",
    "monitoring.dashboard",
    "monitoring.podMonitor",
    "monitoring.prometheusRule",
    "monitoring.prometheusRule.alerts",
    "monitoring.prometheusRule.alerts.certificateEndsSoon",
    "monitoring.prometheusRule.alerts.credentialsRefused",
    "monitoring.prometheusRule.alerts.gatewayMissing",
    "monitoring.prometheusRule.alerts.hooksFail",
    "monitoring.prometheusRule.alerts.issuerKeysStale",
    "monitoring.prometheusRule.alerts.nothingServes",
    "monitoring.prometheusRule.alerts.offloadedLong",
    "monitoring.prometheusRule.alerts.remoteFails",
    "monitoring.prometheusRule.alerts.requestsFail",
    "monitoring.prometheusRule.alerts.routeRefused",
    "monitoring.prometheusRule.alerts.spendHigh",
    "monitoring.prometheusRule.alerts.tableStale",
    "monitoring.serviceMonitor",
    "userRoles"
  ],
  "blank": [
    "config.defaultRemoteBackend",
    "config.defaultRemoteBackend.authConfig",
    "config.defaultRemoteBackend.host",
    "config.namespaces",
    "containerSecurityContext",
    "gateway.resources",
    "hooks.resources",
    "podSecurityContext"
  ]
}
{{- end -}}
