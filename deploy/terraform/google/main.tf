# What Google Cloud needs to know of Cambio: docs/targets/google.md.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = { source = "hashicorp/google", version = ">= 6.0" }
  }
}

variable "project" {
  description = "The project's id"
  type        = string
}

variable "issuer" {
  description = "Cambio's issuer URL, as in its configuration"
  type        = string
}

variable "role" {
  description = "The role of the target that may act as the service account"
  type        = string
  default     = "deploy"
}

provider "google" {
  project = var.project
}

data "google_project" "this" {}

resource "google_project_service" "needed" {
  for_each           = toset(["iam.googleapis.com", "iamcredentials.googleapis.com", "sts.googleapis.com"])
  service            = each.key
  disable_on_destroy = false
}

resource "google_iam_workload_identity_pool" "cambio" {
  workload_identity_pool_id = "cambio"
  display_name              = "Cambio"
  depends_on                = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool_provider" "cambio" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.cambio.workload_identity_pool_id
  workload_identity_pool_provider_id = "cambio"
  display_name                       = "Cambio"

  attribute_mapping = {
    "google.subject"     = "assertion.sub"
    "attribute.role"     = "assertion.role"
    "attribute.rule"     = "assertion.client_id"
    "attribute.exchange" = "assertion.exchange_id"
  }

  # Tokens that Cambio signs for others have no role, and another audience.
  attribute_condition = "has(assertion.role) && has(assertion.exchange_id)"

  oidc {
    issuer_uri = var.issuer
    # None named: the audience must be this provider itself.
  }
}

resource "google_service_account" "deployer" {
  account_id   = "cambio-${var.role}"
  display_name = "What Cambio grants as ${var.role}"
}

resource "google_service_account_iam_member" "may_act" {
  service_account_id = google_service_account.deployer.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.cambio.name}/attribute.role/${var.role}"
}

output "provider" {
  description = "`provider` of the target"
  value       = "//iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/cambio/providers/cambio"
  depends_on  = [google_iam_workload_identity_pool_provider.cambio]
}

output "service_account" {
  description = "`service_account` of the role"
  value       = google_service_account.deployer.email
}
