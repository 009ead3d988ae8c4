# The change from plaintext to TLS, in two applies. `terraform plan` must say "will be updated in-place", never "must be replaced".
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.77.0" # before 5.47.0 it replaces the group, and early ones do not know restartPolicy (task.tf)
    }
  }
}

resource "aws_elasticache_replication_group" "sessions" {
  replication_group_id = "sessions"
  description          = "sessions"
  # The group's other arguments stay as they are.

  transit_encryption_enabled = true
  # The first apply. After `pontoon fleet` answers that it is safe to require TLS, the second apply sets "required". AWS rejects both in one.
  transit_encryption_mode = "preferred"
  apply_immediately       = true

  lifecycle {
    prevent_destroy = true # an error instead of an empty group
  }
}
