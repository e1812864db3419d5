locals {
  provider = "//iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.pool}/providers/cambio"
}

output "provider" {
  description = "`provider` of the target"
  value       = local.provider
  depends_on  = [google_iam_workload_identity_pool_provider.cambio]
}

output "service_accounts" {
  description = "`service_account` of each role"
  value       = { for name, account in google_service_account.role : name => account.email }
}

output "cambio_yaml" {
  description = "For `targets:` of cambio.yaml"
  value       = <<-YAML
    - name: ${var.target}
      kind: google
      provider: ${local.provider}
      environment: ${var.environment}
      ceiling: 1h
      granted_by: [${join(", ", var.granted_by)}]
      roles:
    ${join("\n", [for name, account in google_service_account.role : "    ${name}: { service_account: ${account.email}, scopes: [${join(", ", var.roles[name].scopes)}] }"])}
  YAML
}
