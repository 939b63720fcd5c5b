"""An installation of the chart without a cluster: its manifests started as processes."""
