# The workspace has the environment variables CAMBIO_URL and TFC_WORKLOAD_IDENTITY_AUDIENCE_CAMBIO, both https://cambio.example.com, and
# runs on an agent whose image has `cambio`. The provider asks for the credential itself: it is in no state and in no plan.
provider "kubernetes" {
  host = "https://kubernetes.example.com"
  exec {
    api_version = "client.authentication.k8s.io/v1"
    command     = "cambio"
    args        = ["exchange", "--audience", "jwt/orders", "--scope", "deployer", "--format", "kubernetes"]
  }
}
