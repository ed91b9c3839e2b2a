"""The responses to sync, customize and finalize: children and status of a ModelDeployment or a Policy."""
