// Validates custom resources, a JSON list on standard input, by the schemas that their projects publish.
// Prints a JSON list of what is wrong, one text for each object that is.
import { gatewayNetworkingK8sIo } from "@kubernetes-models/gateway-api";
import { kedaSh } from "@kubernetes-models/keda";
import { monitoringCoreosCom } from "@kubernetes-models/prometheus-operator";

const kinds = {
  "gateway.networking.k8s.io/v1": gatewayNetworkingK8sIo.v1,
  "keda.sh/v1alpha1": kedaSh.v1alpha1,
  "monitoring.coreos.com/v1": monitoringCoreosCom.v1,
};

let text = "";
for await (const chunk of process.stdin) text += chunk;
const wrong = [];
for (const { apiVersion, kind, ...rest } of JSON.parse(text)) {
  try {
    new kinds[apiVersion][kind](rest).validate();
  } catch (error) {
    wrong.push(`${kind}: ${error}`);
  }
}
console.log(JSON.stringify(wrong));
