// The same interface in a build without libcurl (LORAPP_HUB=OFF).
#include <lorapp/error.hpp>
#include <lorapp/io/hub_download.hpp>

namespace lorapp {

bool hub_download_available() { return false; }

HubSnapshot download_snapshot(const std::string& repo_id,
                              const std::string& revision,
                              const HubDownloadOptions&) {
  detail::fail("hub", detail::concat(repo_id, "@", revision,
                                     ": this lorapp was built without downloads; build it with "
                                     "libcurl and LORAPP_HUB=ON, or fetch the model with "
                                     "\"hf download\" of Python's huggingface_hub"));
}

}  // namespace lorapp
