# What Entra needs to know of Cambio: docs/targets/azure.md.

terraform {
  required_version = ">= 1.5"
  required_providers {
    azuread = { source = "hashicorp/azuread", version = ">= 3.0" }
    azurerm = { source = "hashicorp/azurerm", version = ">= 4.0" }
  }
}

variable "issuer" {
  description = "Cambio's issuer URL, as in its configuration"
  type        = string
}

variable "subscription" {
  description = "The subscription's id"
  type        = string
}

variable "role" {
  description = "The role of the target that is this application"
  type        = string
  default     = "deploy"
}

variable "subject" {
  description = "The subject of this application and no other"
  type        = string
  default     = "cambio:prod:deploy"
}

variable "definition" {
  description = "What the application may do in the subscription"
  type        = string
  default     = "Reader"
}

provider "azuread" {}

provider "azurerm" {
  subscription_id = var.subscription
  features {}
}

data "azuread_client_config" "this" {}

resource "azuread_application" "cambio" {
  display_name = "cambio-${var.role}"
}

resource "azuread_service_principal" "cambio" {
  client_id = azuread_application.cambio.client_id
}

resource "azuread_application_federated_identity_credential" "cambio" {
  application_id = azuread_application.cambio.id
  display_name   = "cambio"
  description    = "Cambio signs for this application"
  audiences      = ["api://AzureADTokenExchange"]
  issuer         = var.issuer
  subject        = var.subject
}

resource "azurerm_role_assignment" "cambio" {
  scope                = "/subscriptions/${var.subscription}"
  role_definition_name = var.definition
  principal_id         = azuread_service_principal.cambio.object_id
}

output "tenant" {
  description = "`tenant` of the target"
  value       = data.azuread_client_config.this.tenant_id
}

output "client_id" {
  description = "`client_id` of the role"
  value       = azuread_application.cambio.client_id
}
